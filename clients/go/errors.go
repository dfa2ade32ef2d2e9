package userprofile

import (
	"context"
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

// ErrClosed is the error, for [errors.Is], of calls of a client that was closed.
var ErrClosed = errors.New("userprofile: the client was closed")

// Reason returns the string that [Error.Reason] has for a reason of the
// contract: USER_NOT_FOUND for ERROR_REASON_USER_NOT_FOUND.
func Reason(reason userprofilev1.ErrorReason) string {
	return strings.TrimPrefix(reason.String(), "ERROR_REASON_")
}

// Unreachable is the client's own reason for UNAVAILABLE: the service sent no
// response.
var Unreachable = Reason(userprofilev1.ErrorReason_ERROR_REASON_SERVICE_UNREACHABLE)

// Refused is the client's own reason for calls that gRPC in a server or proxy
// has dropped: CANCELLED without the caller's doing, or RESOURCE_EXHAUSTED that
// isn't about the size of a message.
var Refused = Reason(userprofilev1.ErrorReason_ERROR_REASON_CALL_REFUSED)

var (
	userNotFound    = Reason(userprofilev1.ErrorReason_ERROR_REASON_USER_NOT_FOUND)
	invalidUsername = Reason(userprofilev1.ErrorReason_ERROR_REASON_INVALID_USERNAME)
)

const domain = "userprofile"

// The form of the service's reasons and request ids. Anything else is not from
// the service.
var (
	reasonForm    = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,62}$`)
	requestIDForm = regexp.MustCompile(`^[!-~]{1,128}$`)
)

// aboutSize matches gRPC's messages for messages over a limit, which no retry
// helps.
var aboutSize = regexp.MustCompile(`(?i)larger than|size|too large`)

// maxUsernameBytes is more than any username may have, and little enough for a
// hundred of them to be sent. The server checks what is shorter.
const maxUsernameBytes = 600

// maxMessageRunes limits messages. The service's have about 100 characters.
const maxMessageRunes = 1000

// unreadable is the status of a response from a later version, or from another
// kind of server. Another user's profile must never pass for the requested one.
var unreadable = status.New(codes.Unknown, "The client can't read the server's response.")

// Error is the error of a call, or of one username of a batch, from the service
// or from gRPC. [errors.As] finds it. By [errors.Is], it is [ErrUserNotFound],
// [ErrClosed], [context.Canceled], [context.DeadlineExceeded] or the error of a
// [TokenSource], if that is what the call failed with.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Message is a sentence for people; programs check Code and Reason. Control
	// characters are escaped.
	Message string
	// Reason is the service's reason, for example "USER_NOT_FOUND" (see
	// [Reason]), or [Unreachable] or [Refused]; empty otherwise.
	Reason string
	// Retryable reports whether a retry may help after a pause: the service says
	// so, or it sent no response.
	Retryable bool
	// RequestID identifies the call in the server's log. Empty if there was no
	// call.
	RequestID string
	// Violations are the invalid fields of the request.
	Violations []*errdetails.BadRequest_FieldViolation

	status *status.Status
	cause  error
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

// Unwrap returns what the call failed with, if it isn't a response.
func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus returns the status with its details, for [status.FromError] and
// [status.Code]. That of an Error of your own tests has no details.
func (e *Error) GRPCStatus() *status.Status {
	if e.status == nil {
		return status.New(e.Code, e.Message)
	}
	return e.status
}

// newError takes the request id from the trailer where no detail has it, as in
// the results of a batch, and that of the call where the service sent none.
func newError(s *status.Status, trailer metadata.MD, requestID string) *Error {
	if s.Code() == codes.OK || s.Code() > codes.Unauthenticated {
		// An error with code OK, or with an unknown code.
		p := s.Proto()
		p.Code = int32(codes.Unknown)
		s = status.FromProto(p)
	}
	e := &Error{Code: s.Code(), Message: printable(s.Message()), RequestID: requestID, status: s}
	if e.Code == codes.DeadlineExceeded {
		e.cause = context.DeadlineExceeded
	}
	if id := first(trailer.Get(requestIDKey)); requestIDForm.MatchString(id) {
		e.RequestID = id
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
	if e.Reason == "" {
		if e.Reason = ownReason(e.Code, e.Message); e.Reason != "" {
			e.Retryable = !forbidsRetries(trailer)
		}
	}
	return e
}

// ownReason returns the client's own reason for a failure without one.
func ownReason(code codes.Code, message string) string {
	switch {
	case code == codes.Unavailable:
		return Unreachable
	case code == codes.Canceled, code == codes.ResourceExhausted && !aboutSize.MatchString(message):
		return Refused
	}
	return ""
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

// checkUsername returns INVALID_USERNAME for a name that can't be sent. The
// server checks all others.
func checkUsername(username, field string) error {
	problem := ""
	switch {
	case !utf8.ValidString(username):
		problem = "must be valid Unicode"
	case len(username) > maxUsernameBytes:
		problem = "must not be longer than 233 bytes in UTF-8"
	default:
		return nil
	}
	s, err := status.New(codes.InvalidArgument, "The username is not valid.").WithDetails(
		&errdetails.ErrorInfo{Domain: domain, Reason: invalidUsername},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: field, Description: problem},
		}},
	)
	if err != nil {
		return err
	}
	return newError(s, nil, "")
}

// unsent returns the error of a call that the client has not made, or has given
// up.
func unsent(code codes.Code, message string, requestID string, cause error) *Error {
	e := newError(status.New(code, message), nil, requestID)
	e.Reason, e.Retryable, e.cause = "", false, cause
	return e
}

func errClosed(requestID string) *Error {
	return unsent(codes.Canceled, "The client was closed.", requestID, ErrClosed)
}

func cancelled(s *status.Status, requestID string) *Error {
	return unsent(codes.Canceled, s.Message(), requestID, context.Canceled)
}
