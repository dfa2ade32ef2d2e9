package userprofile_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"

	userprofile "userprofile.example/go"
)

// What the cases of tests/client_conformance, which internal/conformance runs,
// don't look at.
func TestErrorsOfARealServer(t *testing.T) {
	client := newClient(t, needEnv(t, "USERPROFILE_TARGET"), userprofile.Config{Timeout: time.Minute})
	results, err := client.GetUsers(t.Context(), []string{"johndoe", "nobody", "down"})
	if err != nil || results[0].Err != nil {
		t.Fatal(err, results)
	}
	_, alone := client.GetUser(t.Context(), "nobody")
	for _, err := range []error{results[1].Err, alone} {
		failure, ok := asError(err)
		if !ok || !errors.Is(err, userprofile.ErrUserNotFound) || failure.Code != codes.NotFound || failure.Retryable || failure.RequestID == "" {
			t.Errorf("got %v", err)
		}
	}
	_, alone = client.GetUser(t.Context(), "down")
	for _, err := range []error{results[2].Err, alone} {
		failure, ok := asError(err)
		if !ok || errors.Is(err, userprofile.ErrUserNotFound) || failure.Code != codes.Unavailable || !failure.Retryable || failure.RequestID == "" {
			t.Errorf("got %v", err)
		}
	}
	failure, _ := asError(alone)
	for _, detail := range failure.GRPCStatus().Details() {
		if info, ok := detail.(*errdetails.RequestInfo); ok && info.GetRequestId() == failure.RequestID {
			return
		}
	}
	t.Errorf("%v has no RequestInfo with its request id", alone)
}

// needEnv skips the test if there is no real server, in CI it fails.
func needEnv(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		const why = "%s is not set: this test needs the server of `python -m tests.client_conformance`; see README.md"
		if os.Getenv("USERPROFILE_SKIP_NOTHING") != "" {
			t.Fatalf(why, name)
		}
		t.Skipf(why, name)
	}
	return value
}
