package userprofile_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	userprofile "userprofile.example/go"
	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

const unreadableMessage = "The client can't read the server's response."

func TestAnotherUserIsAnError(t *testing.T) {
	for name, response := range map[string]*userprofilev1.GetUserResponse{
		"nobody":        {},
		"somebody else": {User: &userprofile.User{Username: "JohnDoe"}},
	} {
		t.Run(name, func(t *testing.T) {
			server := startFakeServer(t)
			server.user = response
			user, err := newClient(t, server.address, userprofile.Config{}).GetUser(t.Context(), "johndoe")
			if user != nil {
				t.Errorf("got %v", user)
			}
			checkError(t, err, codes.Unknown, unreadableMessage)
		})
	}
}

func TestInvalidResultsOfABatch(t *testing.T) {
	server := startFakeServer(t)
	server.batch = &userprofilev1.BatchGetUsersResponse{Results: []*userprofilev1.BatchGetUsersResponse_Result{
		failedWith("f", int32(codes.DataLoss)), // results are found by their usernames, not by their places
		foundUser("not requested"),
		{Username: "b", Outcome: foundUser("somebody else").GetOutcome()},
		{Username: "c"},
		failedWith("d", int32(codes.OK)),
		failedWith("e", 99),
		foundUser("johndoe"),
	}}
	names := []string{"johndoe", "b", "c", "missing", "d", "e", "f"}
	results, err := newClient(t, server.address, userprofile.Config{}).GetUsers(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	if results[0].User.GetUsername() != "johndoe" || results[0].Err != nil {
		t.Errorf("got %v", results[0])
	}
	for i, want := range []struct {
		code    codes.Code
		message string
	}{
		{codes.Unknown, unreadableMessage},
		{codes.Unknown, unreadableMessage},
		{codes.Unknown, unreadableMessage},
		{codes.Unknown, "as the test wants"},
		{codes.Unknown, "as the test wants"},
		{codes.DataLoss, "as the test wants"},
	} {
		result := results[i+1]
		if result.User != nil || result.Username != names[i+1] {
			t.Errorf("got %v", result)
		}
		failure := checkError(t, result.Err, want.code, want.message)
		if failure.RequestID != "the-batch" {
			t.Errorf("request id %q, want that of the batch", failure.RequestID)
		}
	}
}

func TestNoFieldsAreTheUsernameAndNotAll(t *testing.T) {
	server := startFakeServer(t)
	client := newClient(t, server.address, userprofile.Config{})
	server.batch = new(userprofilev1.BatchGetUsersResponse)
	for name, want := range map[string]struct {
		options []userprofile.CallOption
		paths   []string
	}{
		"all":  {nil, nil},
		"none": {[]userprofile.CallOption{userprofile.WithFields()}, []string{"username"}},
		"two":  {[]userprofile.CallOption{userprofile.WithFields("email", "full_name")}, []string{"username", "email", "full_name"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := client.GetUser(t.Context(), "johndoe", want.options...); err != nil {
				t.Fatal(err)
			}
			if _, err := client.GetUsers(t.Context(), []string{"johndoe"}, want.options...); err != nil {
				t.Fatal(err)
			}
			for _, mask := range server.masks() {
				if !slices.Equal(mask.GetPaths(), want.paths) {
					t.Errorf("requested %v, want %v", mask.GetPaths(), want.paths)
				}
			}
		})
	}
}

func TestANameThatNobodyCanHaveIsNeverSent(t *testing.T) {
	server := startFakeServer(t)
	client := newClient(t, server.address, userprofile.Config{})
	for _, name := range []string{"\xff", strings.Repeat("x", 601)} {
		_, err := client.GetUser(t.Context(), name)
		checkInvalid(t, err, "username")
		results, err := client.GetUsers(t.Context(), []string{name})
		if err != nil {
			t.Fatal(err)
		}
		checkInvalid(t, results[0].Err, "usernames[0]")
	}
	if len(server.attempts()) != 0 {
		t.Error("a call reached the server")
	}
}

func TestUnavailableWithoutAReasonIsUnreachable(t *testing.T) {
	server := startFakeServer(t)
	server.fail = func(context.Context, int) error { return status.Error(codes.Unavailable, "from a proxy") }
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	for name, target := range map[string]string{"a proxy's": server.address, "gRPC's": listener.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			err := getUser(t, newClient(t, target, userprofile.Config{FailFast: true}))
			failure, ok := asError(err)
			if !ok || failure.Code != codes.Unavailable || failure.Reason != userprofile.Unreachable {
				t.Errorf("got %v, want Unavailable and %s", err, userprofile.Unreachable)
			}
		})
	}
}

func foundUser(username string) *userprofilev1.BatchGetUsersResponse_Result {
	user := &userprofile.User{Username: username}
	return &userprofilev1.BatchGetUsersResponse_Result{
		Username: username, Outcome: &userprofilev1.BatchGetUsersResponse_Result_User{User: user},
	}
}

func failedWith(username string, code int32) *userprofilev1.BatchGetUsersResponse_Result {
	return failed(username, &statuspb.Status{Code: code, Message: "as the test wants"})
}

func failed(username string, failure *statuspb.Status) *userprofilev1.BatchGetUsersResponse_Result {
	return &userprofilev1.BatchGetUsersResponse_Result{
		Username: username, Outcome: &userprofilev1.BatchGetUsersResponse_Result_Error{Error: failure},
	}
}

func checkError(t *testing.T, err error, code codes.Code, message string) *userprofile.Error {
	t.Helper()
	failure, ok := asError(err)
	if !ok {
		t.Fatalf("got %v, want an error with code %v", err, code)
	}
	if failure.Code != code || status.Code(err) != code || failure.Message != message {
		t.Errorf("got %v, want code %v and message %q", err, code, message)
	}
	return failure
}

func checkInvalid(t *testing.T, err error, field string) {
	t.Helper()
	failure := checkError(t, err, codes.InvalidArgument, "The username is not valid.")
	if failure.Reason != "INVALID_USERNAME" || len(failure.Violations) != 1 || failure.Violations[0].GetField() != field {
		t.Errorf("got %v, want INVALID_USERNAME in %s", err, field)
	}
}

func TestTextCannotSteerATerminal(t *testing.T) {
	evil := "\x1b[31mred\r\n\u202egpj.\u2028"
	info, _ := anypb.New(&errdetails.ErrorInfo{Domain: "userprofile", Reason: evil})
	id, _ := anypb.New(&errdetails.RequestInfo{RequestId: evil})
	bad, _ := anypb.New(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: evil, Description: evil},
	}})
	failure := &statuspb.Status{
		Code: int32(codes.InvalidArgument), Message: evil + strings.Repeat("x", 2000), Details: []*anypb.Any{info, id, bad},
	}
	server := startFakeServer(t)
	server.batch = &userprofilev1.BatchGetUsersResponse{Results: []*userprofilev1.BatchGetUsersResponse_Result{
		failed("johndoe", failure),
	}}
	results, err := newClient(t, server.address, userprofile.Config{}).GetUsers(t.Context(), []string{"johndoe"})
	if err != nil {
		t.Fatal(err)
	}
	text := results[0].Err.Error()
	if strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		t.Errorf("got %q", text)
	}
	if !strings.Contains(text, `\x1b[31mred\r\n\u202egpj.\u2028xx`) || !strings.Contains(text, "more characters)") {
		t.Errorf("got %s", text)
	}
	if e := checkCode(t, results[0].Err, codes.InvalidArgument); e.Reason != "" || e.RequestID != "the-batch" {
		t.Errorf("got reason %q, request id %q", e.Reason, e.RequestID)
	}
}

func TestAReasonCountsWithItsOwnCodeAlone(t *testing.T) {
	info, _ := anypb.New(&errdetails.ErrorInfo{Domain: "userprofile", Reason: "USER_NOT_FOUND"})
	failure := &statuspb.Status{Code: int32(codes.Internal), Details: []*anypb.Any{info}}
	server := startFakeServer(t)
	server.batch = &userprofilev1.BatchGetUsersResponse{Results: []*userprofilev1.BatchGetUsersResponse_Result{
		failed("johndoe", failure),
	}}
	results, err := newClient(t, server.address, userprofile.Config{}).GetUsers(t.Context(), []string{"johndoe"})
	if err != nil {
		t.Fatal(err)
	}
	if errors.Is(results[0].Err, userprofile.ErrUserNotFound) {
		t.Errorf("%v passes for a user who doesn't exist", results[0].Err)
	}
}

func TestAnErrorOfACallersOwnTestsHasItsCode(t *testing.T) {
	failure := &userprofile.Error{Code: codes.NotFound, Reason: "USER_NOT_FOUND", Message: "There is no such user."}
	if !errors.Is(failure, userprofile.ErrUserNotFound) || status.Code(failure) != codes.NotFound {
		t.Errorf("got %v, %v", failure, status.Code(failure))
	}
}

func checkCode(t *testing.T, err error, code codes.Code) *userprofile.Error {
	t.Helper()
	failure, ok := asError(err)
	if !ok || failure.Code != code {
		t.Fatalf("got %v, want an error with code %v", err, code)
	}
	return failure
}
