package userprofile

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// ErrUserNotFound is what [errors.Is] finds in the error for a username that
// nobody has.
var ErrUserNotFound = errors.New("userprofile: there is no such user")

// Unreachable is the client's own reason for UNAVAILABLE: the service gave no
// answer.
const Unreachable = "SERVICE_UNREACHABLE"

const domain = "userprofile"

// What the service's reasons and request ids look like. Anything else isn't
// ours.
var (
	reasonForm    = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,62}$`)
	requestIDForm = regexp.MustCompile(`^[ -~]{1,128}$`)
)

// maxMessageRunes is what of a message is kept. Ours have some 100; what is
// longer isn't written for people.
const maxMessageRunes = 1000

// notUnderstood is the answer of a later version, or of a server that isn't
// ours. Another user's profile must never pass for the one that was asked for.
var notUnderstood = status.New(codes.Unknown, "The server's answer is one that this client doesn't understand.")

// Error is what the service answered instead of a user, or gRPC on the way to
// it.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Message is a sentence for a person; programs look at Code and Reason. What
	// would steer a terminal in it is escaped.
	Message string
	// Reason is the service's own, for example "USER_NOT_FOUND", or
	// [Unreachable]; empty if something else answered.
	Reason string
	// RequestID finds the call in the server's log, for the results of a batch
	// that of the whole batch; empty if something else answered.
	RequestID string
	// Violations name the fields of the request that are to blame.
	Violations []*errdetails.BadRequest_FieldViolation

	status *status.Status
}

// Error returns the message with all that helps to find the cause.
func (e *Error) Error() string {
	text := "userprofile: " + e.Message
	for _, violation := range e.Violations {
		text += fmt.Sprintf(" %s %s.", violation.GetField(), violation.GetDescription())
	}
	known := []string{e.Code.String()}
	if e.Reason != "" {
		known = append(known, e.Reason)
	}
	if e.RequestID != "" {
		known = append(known, "request id "+e.RequestID)
	}
	return fmt.Sprintf("%s (%s)", text, strings.Join(known, ", "))
}

// Is makes the error of a user who doesn't exist an [ErrUserNotFound]. It goes
// by code and reason: a proxy's NOT_FOUND says nothing about users, nor does a
// server that contradicts itself.
func (e *Error) Is(target error) bool {
	return target == ErrUserNotFound && e.Code == codes.NotFound && e.Reason == "USER_NOT_FOUND"
}

// GRPCStatus lets [status.FromError] and [status.Code] see the status, with all
// its details.
func (e *Error) GRPCStatus() *status.Status {
	return e.status
}

// newError takes the request id from the trailer where no detail has it, as in
// the results of a batch.
func newError(s *status.Status, trailer metadata.MD) *Error {
	if s.Code() == codes.OK || s.Code() > codes.Unauthenticated {
		// An error that says that it is none, or one that nobody knows.
		p := s.Proto()
		p.Code = int32(codes.Unknown)
		s = status.FromProto(p)
	}
	e := &Error{Code: s.Code(), Message: printable(s.Message()), status: s}
	if ids := trailer.Get("x-request-id"); len(ids) > 0 && requestIDForm.MatchString(ids[0]) {
		e.RequestID = ids[0]
	}
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == domain && reasonForm.MatchString(detail.GetReason()) {
				e.Reason = detail.GetReason()
			}
		case *errdetails.RequestInfo:
			if requestIDForm.MatchString(detail.GetRequestId()) {
				e.RequestID = detail.GetRequestId()
			}
		case *errdetails.BadRequest:
			e.Violations = detail.GetFieldViolations()
			for _, violation := range e.Violations {
				violation.Field, violation.Description = printable(violation.Field), printable(violation.Description)
			}
		}
	}
	if e.Reason == "" && e.Code == codes.Unavailable {
		e.Reason = Unreachable
	}
	return e
}

// printable escapes what would steer a terminal, or deceive who reads: control
// characters, line ends, what changes the direction of writing, what can't be
// seen.
func printable(text string) string {
	var kept strings.Builder
	n := 0
	for _, r := range text {
		if n++; n > maxMessageRunes {
			fmt.Fprintf(&kept, "… (%d more characters)", utf8.RuneCountInString(text)-maxMessageRunes)
			break
		}
		if strconv.IsPrint(r) {
			kept.WriteRune(r)
		} else {
			quoted := strconv.QuoteRune(r)
			kept.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return kept.String()
}

// checkUnicode returns the service's error for a name that can't be put into a
// request.
func checkUnicode(username, field string) error {
	if utf8.ValidString(username) {
		return nil
	}
	s, err := status.New(codes.InvalidArgument, "The username is not valid.").WithDetails(
		&errdetails.ErrorInfo{Domain: domain, Reason: "INVALID_USERNAME"},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: field, Description: "must be valid Unicode"},
		}},
	)
	if err != nil {
		return err
	}
	return newError(s, nil)
}
