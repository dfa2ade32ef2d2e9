package userprofile_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	userprofile "userprofile.example/go"
	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

// overloaded is the error of a server without room for a call.
func overloaded(t *testing.T, ctx context.Context, pushback string) error {
	t.Helper()
	grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", pushback))
	s, err := status.New(codes.ResourceExhausted, "The server is overloaded.").WithDetails(
		&errdetails.ErrorInfo{Domain: "userprofile", Reason: userprofile.Reason(userprofilev1.ErrorReason_ERROR_REASON_OVERLOADED)},
		&errdetails.RetryInfo{},
	)
	if err != nil {
		t.Error(err)
	}
	return s.Err()
}

func TestACallThatAnOverloadedServerRefusesIsRetriedAfterItsPushback(t *testing.T) {
	server := startFakeServer(t)
	var refused, retried time.Time
	server.fail = func(ctx context.Context, attempt int) error {
		if attempt == 1 {
			refused = time.Now()
			return overloaded(t, ctx, "400")
		}
		retried = time.Now()
		return nil
	}
	if err := getUser(t, newClient(t, server.address, userprofile.Config{})); err != nil {
		t.Fatal(err)
	}
	if pause := retried.Sub(refused); pause < 400*time.Millisecond {
		t.Errorf("retried after %v", pause)
	}
}

func TestACallThatAnOverloadedServerDoesNotWantAgainIsNotRetried(t *testing.T) {
	server := startFakeServer(t)
	server.fail = func(ctx context.Context, _ int) error { return overloaded(t, ctx, "-1") }
	err := getUser(t, newClient(t, server.address, userprofile.Config{}))
	failure, ok := asError(err)
	if !ok || failure.Code != codes.ResourceExhausted || failure.Reason != "OVERLOADED" || !failure.Retryable {
		t.Errorf("got %#v", err)
	}
	if n := len(server.attempts()); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

func TestASustainedOverloadIsNotMultiplied(t *testing.T) {
	server := startFakeServer(t)
	server.fail = func(ctx context.Context, _ int) error { return overloaded(t, ctx, "1") }
	client := newClient(t, server.address, userprofile.Config{})
	const calls = 1000
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range calls / 20 {
				if getUser(t, client) == nil {
					t.Error("a call succeeded")
				}
			}
		})
	}
	all.Wait()
	// 500 failures until the throttle ends the retries.
	if n := len(server.attempts()); n > calls+600 {
		t.Errorf("%d attempts of %d calls", n, calls)
	}
}

func TestARequestThatIsTooLargeIsNotSent(t *testing.T) {
	server := startFakeServer(t)
	client := newClient(t, server.address, userprofile.Config{})
	large := userprofile.WithFields(strings.Repeat("x", 70_000))
	_, single := client.GetUser(t.Context(), "johndoe", large)
	_, batch := client.GetUsers(t.Context(), []string{"johndoe"}, large)
	for _, err := range []error{single, batch} {
		if failure, ok := asError(err); !ok || failure.Code != codes.ResourceExhausted || failure.Reason != "" || failure.Retryable {
			t.Errorf("got %#v", err)
		}
	}
	if len(server.attempts()) != 0 {
		t.Error("a call reached the server")
	}
}

func TestAFailureWithoutAReasonIsRetryableUnlessThePushbackForbidsIt(t *testing.T) {
	for code, reason := range map[codes.Code]string{
		codes.Unavailable:       userprofile.Unreachable,
		codes.Canceled:          userprofile.Refused,
		codes.ResourceExhausted: userprofile.Refused,
	} {
		for pushback, want := range map[string]bool{"1": true, "-1": false, "soon": false} {
			server := startFakeServer(t)
			server.fail = func(ctx context.Context, _ int) error {
				grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", pushback))
				return status.Error(code, "not now")
			}
			err := getUser(t, newClient(t, server.address, userprofile.Config{}))
			failure, ok := asError(err)
			if !ok || failure.Reason != reason || failure.Retryable != want || errors.Is(err, context.Canceled) {
				t.Errorf("%v, pushback %q: got %#v", code, pushback, err)
			}
		}
	}
}
