package userprofile_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	userprofile "userprofile.example/go"
)

// usernames yields as many, counts those that were taken, and puts one that can't
// be sent into each hundred.
func usernames(number int, taken *int) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range number {
			*taken = i + 1
			name := fmt.Sprintf("user%d", i)
			if i%100 == 50 {
				name = "\xff"
			}
			if !yield(name) {
				return
			}
		}
	}
}

func checkResult(t *testing.T, i int, result userprofile.Result) {
	t.Helper()
	if i%100 == 50 {
		checkInvalid(t, result.Err, fmt.Sprintf("usernames[%d]", i))
		return
	}
	if want := fmt.Sprintf("user%d", i); result.Username != want || result.User.GetUsername() != want || result.Err != nil {
		t.Errorf("result %d: %+v", i, result)
	}
}

func TestAnyNumberOfUsers(t *testing.T) {
	server := startFakeServer(t)
	client := newClient(t, server.address, userprofile.Config{})
	var taken int
	for number, calls := range map[int]int{0: 0, 1: 1, 100: 1, 101: 2, 1234: 13} {
		before := len(server.attempts())
		var names []string
		for name := range usernames(number, &taken) {
			names = append(names, name)
		}
		results, err := client.GetUsers(t.Context(), names)
		if err != nil || len(results) != number {
			t.Fatalf("%d results, %v; want %d", len(results), err, number)
		}
		for i, result := range results {
			checkResult(t, i, result)
		}
		if n := len(server.attempts()) - before; n != calls {
			t.Errorf("%d calls for %d usernames, want %d", n, number, calls)
		}
	}
}

func TestFourCallsAreInFlightAndNoMore(t *testing.T) {
	server := startFakeServer(t)
	arrived, goOn := make(chan struct{}), make(chan struct{})
	server.fail = func(context.Context, int) error {
		arrived <- struct{}{}
		<-goOn
		return nil
	}
	client := newClient(t, server.address, userprofile.Config{Timeout: time.Minute})
	var taken int
	i := 0
	go func() {
		for range 4 {
			<-arrived
		}
		select {
		case <-arrived:
			t.Error("a fifth call arrived")
		case <-time.After(50 * time.Millisecond):
		}
		close(goOn)
		for range arrived {
		}
	}()
	for result := range client.IterUsers(t.Context(), usernames(1000, &taken)) {
		checkResult(t, i, result)
		if i++; i == 1 && taken != 400 {
			t.Errorf("%d usernames were taken for the first result", taken)
		}
	}
	if i != 1000 {
		t.Errorf("%d results", i)
	}
}

func TestAFailedCallIsTheErrorOfGetUsersAndOfItsOwnUsernamesOnly(t *testing.T) {
	server := startFakeServer(t)
	server.fail = func(_ context.Context, attempt int) error {
		if attempt == 1 {
			return status.Error(codes.Internal, "broken")
		}
		return nil
	}
	client := newClient(t, server.address, userprofile.Config{})
	var taken, failed, i int
	for result := range client.IterUsers(t.Context(), usernames(1000, &taken)) {
		if status.Code(result.Err) == codes.Internal {
			failed++
		} else {
			checkResult(t, i, result)
		}
		i++
	}
	if failed != 99 || i != 1000 {
		t.Errorf("%d of %d failed", failed, i)
	}
	server.fail = func(context.Context, int) error { return status.Error(codes.Internal, "broken") }
	results, err := client.GetUsers(t.Context(), []string{"johndoe"})
	if status.Code(err) != codes.Internal || results != nil {
		t.Errorf("got %v, %v", results, err)
	}
}

func TestALoopThatIsLeftEndsItsCalls(t *testing.T) {
	server := startFakeServer(t)
	arrived, ended := make(chan struct{}), make(chan error)
	server.fail = func(ctx context.Context, attempt int) error {
		if attempt <= 4 {
			return nil
		}
		arrived <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	client := newClient(t, server.address, userprofile.Config{Timeout: time.Minute})
	var taken, i int
	for range client.IterUsers(t.Context(), usernames(100_000, &taken)) {
		if i++; i > 100 { // the second batch; the fifth is in flight
			<-arrived
			break
		}
	}
	if taken > 500 {
		t.Errorf("%d usernames were taken", taken)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
