package userprofile

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

// ErrUserNotFound is the error, for [errors.Is], of a username that no user has.
var ErrUserNotFound = errors.New("userprofile: there is no such user")

// Reason returns the string that [Error.Reason] has for a reason of the
// contract: USER_NOT_FOUND for ERROR_REASON_USER_NOT_FOUND.
func Reason(reason userprofilev1.ErrorReason) string {
	return strings.TrimPrefix(reason.String(), "ERROR_REASON_")
}

// Unreachable is the client's own reason for UNAVAILABLE: the service sent no
// response.
var Unreachable = Reason(userprofilev1.ErrorReason_ERROR_REASON_SERVICE_UNREACHABLE)

var (
	userNotFound    = Reason(userprofilev1.ErrorReason_ERROR_REASON_USER_NOT_FOUND)
	invalidUsername = Reason(userprofilev1.ErrorReason_ERROR_REASON_INVALID_USERNAME)
)

const domain = "userprofile"

// The form of the service's reasons and request ids. Anything else is not from
// the service.
var (
	reasonForm    = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,62}$`)
	requestIDForm = regexp.MustCompile(`^[ -~]{1,128}$`)
)

// maxMessageRunes limits messages. The service's have about 100 characters.
const maxMessageRunes = 1000

// unreadable is the status of a response from a later version, or from another
// kind of server. Another user's profile must never pass for the requested one.
var unreadable = status.New(codes.Unknown, "The client can't read the server's response.")

// Error is the error of a call, or of one username of a batch, from the service
// or from gRPC.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Message is a sentence for people; programs check Code and Reason. Control
	// characters are escaped.
	Message string
	// Reason is the service's reason, for example "USER_NOT_FOUND" (see
	// [Reason]), or [Unreachable]; empty if the error is not from the service.
	Reason string
	// Retryable reports whether a retry may help after a pause: the service says
	// so, or no server sent a response.
	Retryable bool
	// RequestID identifies the call in the server's log. All results of a batch
	// have the same. Empty if the error is not from the service.
	RequestID string
	// Violations are the invalid fields of the request.
	Violations []*errdetails.BadRequest_FieldViolation

	status *status.Status
}

// Error returns the message with violations, code, reason and request id.
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

// Is reports whether target is [ErrUserNotFound] and the service returned
// NOT_FOUND with the reason USER_NOT_FOUND. A proxy's NOT_FOUND doesn't count.
func (e *Error) Is(target error) bool {
	return target == ErrUserNotFound && e.Code == codes.NotFound && e.Reason == userNotFound
}

// GRPCStatus returns the status with its details, for [status.FromError] and
// [status.Code].
func (e *Error) GRPCStatus() *status.Status {
	return e.status
}

// newError takes the request id from the trailer where no detail has it, as in
// the results of a batch.
func newError(s *status.Status, trailer metadata.MD) *Error {
	if s.Code() == codes.OK || s.Code() > codes.Unauthenticated {
		// An error with code OK, or with an unknown code.
		p := s.Proto()
		p.Code = int32(codes.Unknown)
		s = status.FromProto(p)
	}
	e := &Error{Code: s.Code(), Message: printable(s.Message()), status: s}
	if ids := trailer.Get("x-request-id"); len(ids) > 0 && requestIDForm.MatchString(ids[0]) {
		e.RequestID = ids[0]
	}
	var retryInfo bool
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.RetryInfo:
			retryInfo = true
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
	e.Retryable = e.Reason != "" && retryInfo
	if e.Reason == "" && e.Code == codes.Unavailable {
		e.Reason = Unreachable
		e.Retryable = !forbidsRetries(trailer)
	}
	return e
}

// forbidsRetries follows gRPC's rule: a pushback that is no number forbids
// retries, as -1 does.
func forbidsRetries(trailer metadata.MD) bool {
	return slices.ContainsFunc(trailer.Get("grpc-retry-pushback-ms"), func(pause string) bool {
		_, err := strconv.ParseUint(pause, 10, 32)
		return err != nil
	})
}

// printable escapes control characters, line ends, bidirectional formatting and
// invisible characters: they could control or spoof the terminal.
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

// checkUnicode returns INVALID_USERNAME for a name that protobuf can't encode.
func checkUnicode(username, field string) error {
	if utf8.ValidString(username) {
		return nil
	}
	s, err := status.New(codes.InvalidArgument, "The username is not valid.").WithDetails(
		&errdetails.ErrorInfo{Domain: domain, Reason: invalidUsername},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: field, Description: "must be valid Unicode"},
		}},
	)
	if err != nil {
		return err
	}
	return newError(s, nil)
}
