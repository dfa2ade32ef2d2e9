package userprofile_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	userprofile "userprofile.example/go"
	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

var userNotFound = userprofile.Reason(userprofilev1.ErrorReason_ERROR_REASON_USER_NOT_FOUND)

// outcome is what the table expects of one name, or of one call.
type outcome struct {
	User  json.RawMessage // as protojson reads it
	Error *struct {
		Code      codes.Code
		Reason    string
		Retryable bool
		Field     string
	}
}

type call struct {
	outcome
	Case      string
	Timeout   float64
	Username  string
	Usernames []string
	Fields    []string // nil requests all
	Results   []struct {
		outcome
		Username string
	}
}

type table struct {
	GetUser       []call `json:"get_user"`
	BatchGetUsers []call `json:"batch_get_users"`
}

func TestGetUserConformance(t *testing.T) {
	client := newClient(t, needEnv(t, "USERPROFILE_TARGET"), userprofile.Config{})
	for _, c := range readTable(t).GetUser {
		t.Run(c.Case, func(t *testing.T) {
			ctx, cancel := c.context(t)
			defer cancel()
			user, err := client.GetUser(ctx, c.Username, c.options()...)
			c.check(t, user, err)
			checkRequestInfo(t, err)
		})
	}
}

func TestBatchGetUsersConformance(t *testing.T) {
	client := newClient(t, needEnv(t, "USERPROFILE_TARGET"), userprofile.Config{})
	for _, c := range readTable(t).BatchGetUsers {
		t.Run(c.Case, func(t *testing.T) {
			ctx, cancel := c.context(t)
			defer cancel()
			results, err := client.BatchGetUsers(ctx, c.Usernames, c.options()...)
			if c.Error != nil || err != nil {
				c.check(t, nil, err)
				checkRequestInfo(t, err)
			}
			if len(results) != len(c.Results) {
				t.Fatalf("%d results, want %d", len(results), len(c.Results))
			}
			for i, result := range results {
				if result.Username != c.Results[i].Username {
					t.Errorf("the result of %q, want that of %q", result.Username, c.Results[i].Username)
				}
				c.Results[i].check(t, result.User, result.Err)
			}
		})
	}
}

func needEnv(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: this test needs the server and the table of tests/client_conformance; see README.md", name)
	}
	return value
}

func readTable(t *testing.T) table {
	t.Helper()
	content, err := os.ReadFile(needEnv(t, "USERPROFILE_CONFORMANCE_TABLE"))
	if err != nil {
		t.Fatal(err)
	}
	var cases table
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields() // a method that nobody tests here
	if err := decoder.Decode(&cases); err != nil {
		t.Fatal(err)
	}
	if len(cases.GetUser) == 0 || len(cases.BatchGetUsers) == 0 {
		t.Fatal("the table lacks the cases of a method")
	}
	return cases
}

func (c call) options() []userprofile.CallOption {
	if c.Fields == nil {
		return nil
	}
	return []userprofile.CallOption{userprofile.WithFields(c.Fields...)}
}

func (c call) context(t *testing.T) (context.Context, context.CancelFunc) {
	seconds := cmp.Or(c.Timeout, 10)
	return context.WithTimeout(t.Context(), time.Duration(seconds*float64(time.Second)))
}

func (o outcome) check(t *testing.T, user *userprofile.User, err error) {
	t.Helper()
	if o.Error == nil {
		want := new(userprofile.User)
		if err := protojson.Unmarshal(o.User, want); err != nil {
			t.Fatal(err)
		}
		if err != nil || !proto.Equal(user, want) {
			t.Errorf("got %v, %v; want %v", user, err, want)
		}
		return
	}
	failure, ok := errors.AsType[*userprofile.Error](err)
	if !ok {
		t.Fatalf("got %v, %v; want an error %+v", user, err, *o.Error)
	}
	if user != nil || failure.Code != o.Error.Code || status.Code(err) != o.Error.Code {
		t.Errorf("got %v, %v; want code %v", user, err, o.Error.Code)
	}
	if o.Error.Reason != "" && (failure.Reason != o.Error.Reason || failure.RequestID == "") {
		t.Errorf("got %v; want reason %s and a request id", err, o.Error.Reason)
	}
	if o.Error.Reason != "" && failure.Retryable != o.Error.Retryable {
		t.Errorf("got %v, retryable %t; want %t", err, failure.Retryable, o.Error.Retryable)
	}
	if errors.Is(err, userprofile.ErrUserNotFound) != (o.Error.Reason == userNotFound) {
		t.Errorf("got %v, which should be ErrUserNotFound if and only if nobody has the name", err)
	}
	var field string
	for _, violation := range failure.Violations {
		field += violation.GetField()
	}
	if field != o.Error.Field {
		t.Errorf("got %v; want field %q", err, o.Error.Field)
	}
}

// checkRequestInfo looks at the details themselves, which the results of a
// batch don't have.
func checkRequestInfo(t *testing.T, err error) {
	t.Helper()
	failure, ok := errors.AsType[*userprofile.Error](err)
	if !ok || failure.Reason == "" {
		return
	}
	for _, detail := range failure.GRPCStatus().Details() {
		if info, ok := detail.(*errdetails.RequestInfo); ok && info.GetRequestId() == failure.RequestID {
			return
		}
	}
	t.Errorf("%v has no RequestInfo with its request id", err)
}
