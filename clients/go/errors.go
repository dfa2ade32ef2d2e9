package userprofile

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// ErrUserNotFound is what [errors.Is] finds in the error for a username that
// nobody has.
var ErrUserNotFound = errors.New("userprofile: there is no such user")

// Error is what the service answered instead of a user, or gRPC on the way to
// it.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Message is a sentence for a person; programs look at Code and Reason.
	Message string
	// Reason is the service's own, for example "USER_NOT_FOUND"; empty if
	// gRPC answered.
	Reason string
	// RequestID finds the call in the server's log; empty if gRPC answered.
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
// by the reason: a proxy's NOT_FOUND says nothing about users.
func (e *Error) Is(target error) bool {
	return target == ErrUserNotFound && e.Reason == "USER_NOT_FOUND"
}

// GRPCStatus lets [status.FromError] and [status.Code] see the status, with all
// its details.
func (e *Error) GRPCStatus() *status.Status {
	return e.status
}

func newError(s *status.Status) *Error {
	e := &Error{Code: s.Code(), Message: s.Message(), status: s}
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == "userprofile" {
				e.Reason = detail.GetReason()
			}
		case *errdetails.RequestInfo:
			e.RequestID = detail.GetRequestId()
		case *errdetails.BadRequest:
			e.Violations = detail.GetFieldViolations()
		}
	}
	return e
}

// newResultError takes the request id from the trailer, because it is that of
// the whole batch and no result repeats it.
func newResultError(s *statuspb.Status, trailer metadata.MD) *Error {
	if s == nil {
		s = &statuspb.Status{Code: int32(codes.Unknown), Message: "The service answered in a way that this client is too old for."}
	}
	e := newError(status.FromProto(s))
	if ids := trailer.Get("x-request-id"); len(ids) > 0 {
		e.RequestID = ids[0]
	}
	return e
}
