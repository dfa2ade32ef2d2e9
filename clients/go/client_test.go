package userprofile_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	userprofile "userprofile.example/go"
	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

func TestRetries(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "not now")
	tests := map[string]struct {
		fail     func(ctx context.Context, attempt int) error
		attempts int
		code     codes.Code
	}{
		"until it works": {
			func(_ context.Context, attempt int) error {
				if attempt < 5 {
					return unavailable
				}
				return nil
			}, 5, codes.OK,
		},
		"five attempts at most": {
			func(context.Context, int) error { return unavailable }, 5, codes.Unavailable,
		},
		"not against the server's pushback": {
			func(ctx context.Context, _ int) error {
				grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "-1"))
				return unavailable
			}, 1, codes.Unavailable,
		},
		"nothing but UNAVAILABLE": {
			func(context.Context, int) error { return status.Error(codes.Internal, "broken") }, 1, codes.Internal,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := startFakeServer(t)
			server.fail = test.fail
			err := getUser(t, newClient(t, server.address, userprofile.Config{}))
			if status.Code(err) != test.code {
				t.Errorf("got %v, want %v", err, test.code)
			}
			if n := len(server.attempts()); n != test.attempts {
				t.Errorf("%d attempts, want %d", n, test.attempts)
			}
		})
	}
}

func TestRetriesMakeUpForALostServerButNotForAnOutage(t *testing.T) {
	server := startFakeServer(t)
	var failing atomic.Int64 // attempts from here on
	server.fail = func(context.Context, int) error {
		if failing.Add(-1) >= 0 {
			return status.Error(codes.Unavailable, "not now")
		}
		return nil
	}
	client := newClient(t, server.address, userprofile.Config{})
	calls := func(n int) (failed int64) {
		var count atomic.Int64
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				if getUser(t, client) != nil {
					count.Add(1)
				}
			})
		}
		all.Wait()
		return count.Load()
	}

	failing.Store(100)
	if n := calls(200); n != 0 {
		t.Errorf("%d calls failed that another attempt would have saved", n)
	}
	failing.Store(1_000_000)
	calls(400)
	before := len(server.attempts())
	calls(1)
	if n := len(server.attempts()) - before; n != 1 {
		t.Errorf("%d attempts while everything fails, want 1", n)
	}
}

func TestEachClientHasAConnectionOfItsOwn(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for range 2 {
		client := newClient(t, listener.Addr().String(), userprofile.Config{Timeout: 100 * time.Millisecond})
		if _, err := client.GetUser(t.Context(), "johndoe"); err == nil {
			t.Error("a silent server has responded")
		}
		conn, err := listener.Accept() // left open and silent, so that nobody connects again
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
}

func TestAServiceConfigFromTheResolverIsIgnored(t *testing.T) {
	server := startFakeServer(t)
	server.fail = func(_ context.Context, attempt int) error {
		if attempt < 4 {
			return status.Error(codes.Unavailable, "not now")
		}
		return nil
	}
	addresses := manual.NewBuilderWithScheme("test")
	addresses.BuildCallback = func(_ resolver.Target, conn resolver.ClientConn, _ resolver.BuildOptions) {
		addresses.InitialState(resolver.State{
			Addresses:     []resolver.Address{{Addr: server.address}},
			ServiceConfig: conn.ParseServiceConfig(`{}`),
		})
	}
	client := newClient(t, "test:///one", userprofile.Config{DialOptions: []grpc.DialOption{grpc.WithResolvers(addresses)}})
	if err := getUser(t, client); err != nil {
		t.Errorf("got %v: there were no retries", err)
	}
}

func TestLargeResponses(t *testing.T) {
	server := startFakeServer(t)
	name := strings.Repeat("x", 32*1024*1024)
	server.user = &userprofilev1.GetUserResponse{User: &userprofile.User{Username: "johndoe", FullName: &name}}
	if err := getUser(t, newClient(t, server.address, userprofile.Config{})); err != nil {
		t.Error(err)
	}
}

func TestHealthCheckingSkipsServersThatAreNotServing(t *testing.T) {
	first, second, third := startFakeServer(t), startFakeServer(t), startFakeServer(t)
	third.health.SetServingStatus(userprofilev1.UserProfileService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_NOT_SERVING)
	addresses := manual.NewBuilderWithScheme("test")
	addresses.InitialState(resolver.State{Endpoints: []resolver.Endpoint{
		{Addresses: []resolver.Address{{Addr: first.address}}},
		{Addresses: []resolver.Address{{Addr: second.address}}},
		{Addresses: []resolver.Address{{Addr: third.address}}},
	}})
	client := newClient(t, "test:///all", userprofile.Config{
		HealthChecking: true,
		DialOptions:    []grpc.DialOption{grpc.WithResolvers(addresses)},
	})

	// Each connection takes its time, so calls continue until both servers have received one.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for len(first.attempts()) == 0 || len(second.attempts()) == 0 {
		if _, err := client.GetUser(ctx, "johndoe"); err != nil {
			t.Fatal(err)
		}
	}
	if len(third.attempts()) != 0 {
		t.Error("a server that reports NOT_SERVING was called")
	}
}

func TestEveryCallHasADeadline(t *testing.T) {
	const timeout = 50 * time.Millisecond
	server := startFakeServer(t)
	server.fail = func(ctx context.Context, _ int) error {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > timeout {
			return status.Error(codes.Internal, "the call has no deadline, or a later one")
		}
		<-ctx.Done()
		return ctx.Err()
	}
	client := newClient(t, server.address, userprofile.Config{Timeout: timeout})
	if _, err := client.GetUser(t.Context(), "johndoe"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	if _, err := client.GetUsers(t.Context(), []string{"johndoe"}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
}

func TestAContextsOwnDeadlineCounts(t *testing.T) {
	client := newClient(t, startFakeServer(t).address, userprofile.Config{Timeout: time.Nanosecond})
	if err := getUser(t, client); err != nil {
		t.Error(err)
	}
}

func TestErrorDetailsOfOthersAreNotTheServices(t *testing.T) {
	server := startFakeServer(t)
	server.fail = func(context.Context, int) error {
		s, err := status.New(codes.NotFound, "no route").WithDetails(
			&errdetails.ErrorInfo{Domain: "proxy.example", Reason: "USER_NOT_FOUND"})
		if err != nil {
			return err
		}
		return s.Err()
	}
	err := getUser(t, newClient(t, server.address, userprofile.Config{}))
	failure, ok := asError(err)
	if !ok || failure.Code != codes.NotFound || failure.Reason != "" || errors.Is(err, userprofile.ErrUserNotFound) {
		t.Errorf("got %v, want a NotFound without a reason", err)
	}
}

func TestBadConfig(t *testing.T) {
	tests := map[string]struct {
		target string
		config userprofile.Config
	}{
		"no target":           {"", userprofile.Config{}},
		"negative timeout":    {"localhost:50051", userprofile.Config{Timeout: -1}},
		"line break in token": {"localhost:50051", userprofile.Config{Token: "secret\n"}},
		"many connections":    {"localhost:50051", userprofile.Config{Connections: 65}},
		"two tokens": {"localhost:50051", userprofile.Config{Token: "a", TokenSource: func(context.Context) (string, error) {
			return "b", nil
		}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := userprofile.NewClient(test.target, test.config); err == nil {
				t.Error("accepted")
			}
		})
	}
}
