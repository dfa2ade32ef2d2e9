package userprofile_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	userprofile "userprofile.example/go"
	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

const (
	trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	other = "00-1bf7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"
)

func TestMetadataOfACall(t *testing.T) {
	serving := func(pairs ...string) context.Context {
		return metadata.NewIncomingContext(t.Context(), metadata.Pairs(pairs...))
	}
	tests := map[string]struct {
		ctx     context.Context
		options []userprofile.CallOption
		sent    map[string]string
	}{
		"of the context": {
			metadata.AppendToOutgoingContext(t.Context(), "x-tenant", "blue", "x-request-id", "mine"), nil,
			map[string]string{"x-tenant": "blue", "x-request-id": "mine"},
		},
		"a request id of its own": {
			serving("x-request-id", "theirs"), []userprofile.CallOption{userprofile.WithRequestID("own")},
			map[string]string{"x-request-id": "own"},
		},
		"of the call that is being served": {
			serving("x-request-id", "theirs", "traceparent", trace, "tracestate", "a=1", "tracestate", "b=2", "authorization", "secret"), nil,
			map[string]string{"x-request-id": "theirs", "traceparent": trace, "tracestate": "a=1,b=2", "authorization": ""},
		},
		"a trace of its own": {
			metadata.AppendToOutgoingContext(serving("traceparent", trace, "tracestate", "a=1"), "traceparent", other), nil,
			map[string]string{"traceparent": other, "tracestate": ""},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := startFakeServer(t)
			if _, err := newClient(t, server.address, userprofile.Config{}).GetUser(test.ctx, "johndoe", test.options...); err != nil {
				t.Fatal(err)
			}
			for key, want := range test.sent {
				if got := strings.Join(server.attempts()[0].Get(key), ","); got != want {
					t.Errorf("%s: sent %q, want %q", key, got, want)
				}
			}
		})
	}
}

func TestTheRequestIDOfAnErrorIsTheOneThatWasSent(t *testing.T) {
	server := startFakeServer(t)
	server.fail = func(context.Context, int) error { return status.Error(codes.Internal, "broken") }
	// An invalid id of the call that is being served is not passed on.
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("x-request-id", "two words"))
	_, err := newClient(t, server.address, userprofile.Config{}).GetUser(ctx, "johndoe")
	failure, ok := asError(err)
	if sent := server.attempts()[0].Get("x-request-id"); !ok || len(sent) != 1 || len(sent[0]) < 20 || failure.RequestID != sent[0] {
		t.Errorf("got %v, sent %q", err, sent)
	}
	_, err = newClient(t, server.address, userprofile.Config{}).GetUser(t.Context(), "johndoe", userprofile.WithRequestID("two words"))
	if status.Code(err) != codes.InvalidArgument || len(server.attempts()) != 1 {
		t.Errorf("got %v", err)
	}
}

func TestATokenSourceIsAskedForEachCall(t *testing.T) {
	server := startFakeServer(t)
	noSuchToken := errors.New("no such token")
	type key struct{}
	client := newClient(t, server.address, userprofile.Config{TokenSource: func(ctx context.Context) (string, error) {
		if token, ok := ctx.Value(key{}).(string); ok {
			return token, nil
		}
		return "", noSuchToken
	}})
	for _, token := range []string{"one", "two"} {
		if _, err := client.GetUser(context.WithValue(t.Context(), key{}, token), "johndoe"); err != nil {
			t.Fatal(err)
		}
	}
	attempts := server.attempts()
	if first, second := attempts[0].Get("authorization")[0], attempts[1].Get("authorization")[0]; first != "Bearer one" || second != "Bearer two" {
		t.Errorf("sent %q and %q", first, second)
	}
	_, err := client.GetUser(t.Context(), "johndoe")
	if failure, ok := asError(err); !ok || failure.Code != codes.Unauthenticated || !errors.Is(err, noSuchToken) || failure.Retryable {
		t.Errorf("got %v", err)
	}
	_, err = client.GetUser(context.WithValue(t.Context(), key{}, "a secret\n"), "johndoe")
	if status.Code(err) != codes.Unauthenticated || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	if len(server.attempts()) != 2 {
		t.Error("a call without a token was made")
	}
}

func TestGRPCsOwnOptions(t *testing.T) {
	server := startFakeServer(t)
	server.fail = func(context.Context, int) error { return status.Error(codes.Unavailable, "not now") }
	var intercepted atomic.Int64
	client := newClient(t, server.address, userprofile.Config{DialOptions: []grpc.DialOption{
		grpc.WithDisableRetry(),
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			intercepted.Add(1)
			return invoke(metadata.AppendToOutgoingContext(ctx, "x-tenant", "blue"), method, request, reply, conn, options...)
		}),
	}})
	var trailer metadata.MD
	if _, err := client.GetUser(t.Context(), "johndoe", userprofile.WithGRPC(grpc.Trailer(&trailer))); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	if n := len(server.attempts()); n != 1 || intercepted.Load() != 1 || server.attempts()[0].Get("x-tenant")[0] != "blue" {
		t.Errorf("%d attempts, %d calls of the interceptor", n, intercepted.Load())
	}
	if trailer == nil {
		t.Error("the caller's option was not passed on")
	}
}

func TestTheNumberOfAttemptsIsGRPCsOption(t *testing.T) {
	server := startFakeServer(t)
	server.fail = func(context.Context, int) error { return status.Error(codes.Unavailable, "not now") }
	client := newClient(t, server.address, userprofile.Config{DialOptions: []grpc.DialOption{grpc.WithMaxCallAttempts(2)}})
	if err := getUser(t, client); status.Code(err) != codes.Unavailable || len(server.attempts()) != 2 {
		t.Errorf("got %v after %d attempts", err, len(server.attempts()))
	}
}

func TestEndsThatAreNotTheServers(t *testing.T) {
	server := startFakeServer(t)
	arrived := make(chan struct{}, 1)
	server.fail = func(ctx context.Context, _ int) error {
		arrived <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	client := newClient(t, server.address, userprofile.Config{})
	for _, test := range []struct {
		end  func(cancel func())
		is   error
		code codes.Code
	}{
		{func(cancel func()) { cancel() }, context.Canceled, codes.Canceled},
		{func(func()) { client.Close() }, userprofile.ErrClosed, codes.Canceled},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error)
		go func() {
			_, err := client.GetUser(ctx, "johndoe")
			failed <- err
		}()
		<-arrived
		test.end(cancel)
		err := <-failed
		failure, ok := asError(err)
		if !ok || !errors.Is(err, test.is) || failure.Code != test.code || failure.Reason != "" || failure.Retryable || failure.RequestID == "" {
			t.Errorf("got %#v, want %v", err, test.is)
		}
		cancel()
	}
	_, single := client.GetUser(t.Context(), "johndoe")
	_, several := client.GetUsers(t.Context(), []string{"johndoe"})
	_, health := client.CheckHealth(t.Context())
	for _, err := range []error{single, several, health} {
		if !errors.Is(err, userprofile.ErrClosed) {
			t.Errorf("got %v after Close", err)
		}
	}
}

func TestClosingEndsCallsWhereverTheyAre(t *testing.T) {
	arrived := make(chan struct{}, 1)
	inTheServer := func(ctx context.Context, _ int) error {
		arrived <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	for name, test := range map[string]struct {
		fail   func(ctx context.Context, attempt int) error
		config userprofile.Config
		call   func(ctx context.Context, client *userprofile.Client) error
	}{
		"in the server": {inTheServer, userprofile.Config{DialOptions: []grpc.DialOption{grpc.WithDisableRetry()}}, nil},
		"in the server, several users": {inTheServer, userprofile.Config{}, func(ctx context.Context, client *userprofile.Client) error {
			_, err := client.GetUsers(ctx, []string{"johndoe"})
			return err
		}},
		"in the server, a health check": {inTheServer, userprofile.Config{}, func(ctx context.Context, client *userprofile.Client) error {
			_, err := client.CheckHealth(ctx)
			return err
		}},
		"before a retry": {func(ctx context.Context, _ int) error {
			arrived <- struct{}{}
			grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", "3600000"))
			return status.Error(codes.Unavailable, "in an hour")
		}, userprofile.Config{}, nil},
		"in the token source": {nil, userprofile.Config{TokenSource: func(ctx context.Context) (string, error) {
			arrived <- struct{}{}
			<-ctx.Done()
			return "", ctx.Err()
		}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			server := startFakeServer(t)
			server.fail = test.fail
			client := newClient(t, server.address, test.config)
			failed := make(chan error)
			go func() {
				if test.call == nil {
					failed <- getUser(t, client)
				} else {
					failed <- test.call(t.Context(), client)
				}
			}()
			<-arrived
			for range 2 {
				if err := client.Close(); err != nil {
					t.Errorf("Close: %v", err)
				}
			}
			if err := <-failed; !errors.Is(err, userprofile.ErrClosed) || status.Code(err) != codes.Canceled {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestATokenSourceThatTakesLongerThanTheCall(t *testing.T) {
	client := newClient(t, startFakeServer(t).address, userprofile.Config{TokenSource: func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "", errors.New("no response from the issuer")
	}})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for ctx, want := range map[context.Context]codes.Code{cancelled: codes.Canceled, late: codes.DeadlineExceeded} {
		_, err := client.GetUser(ctx, "johndoe")
		if status.Code(err) != want || !errors.Is(err, ctx.Err()) || !strings.Contains(err.Error(), "no response from the issuer") {
			t.Errorf("got %v", err)
		}
	}
}

func TestAPanicIsThatOfTheCaller(t *testing.T) {
	panics := func() { panic("a bug of one's own") }
	for name, config := range map[string]userprofile.Config{
		"token source": {TokenSource: func(context.Context) (string, error) { panics(); return "", nil }},
		"interceptor": {DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(
			func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
				panics()
				return nil
			})}},
	} {
		client := newClient(t, startFakeServer(t).address, config)
		for method, call := range map[string]func(){
			"GetUser":  func() { client.GetUser(t.Context(), "johndoe") },
			"GetUsers": func() { client.GetUsers(t.Context(), []string{"johndoe"}) },
		} {
			t.Run(name+" "+method, func(t *testing.T) {
				defer func() {
					if text := fmt.Sprint(recover()); !strings.HasPrefix(text, "a bug of one's own") {
						t.Errorf("recovered %v", text)
					}
				}()
				call()
			})
		}
	}
}

func TestADeadlineThatPasses(t *testing.T) {
	server := startFakeServer(t)
	server.fail = func(ctx context.Context, _ int) error {
		<-ctx.Done()
		return ctx.Err()
	}
	_, err := newClient(t, server.address, userprofile.Config{Timeout: 50 * time.Millisecond}).GetUser(t.Context(), "johndoe")
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestCheckHealth(t *testing.T) {
	server := startFakeServer(t)
	client := newClient(t, server.address, userprofile.Config{HealthChecking: true, Token: "secret"})
	for _, reported := range []healthpb.HealthCheckResponse_ServingStatus{
		healthpb.HealthCheckResponse_SERVING,
		healthpb.HealthCheckResponse_NOT_SERVING,
	} {
		server.health.SetServingStatus(userprofilev1.UserProfileService_ServiceDesc.ServiceName, reported)
		serving, err := client.CheckHealth(t.Context())
		if err != nil || serving != (reported == healthpb.HealthCheckResponse_SERVING) {
			t.Errorf("%v: got %t, %v", reported, serving, err)
		}
	}
	server.stop()
	_, err := client.CheckHealth(t.Context())
	if failure, ok := asError(err); !ok || failure.Reason != userprofile.Unreachable {
		t.Errorf("got %v", err)
	}
}

func TestConnectionsTakeTurns(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var opened atomic.Int64
	server := grpc.NewServer()
	userprofilev1.RegisterUserProfileServiceServer(server, &fakeServer{})
	go server.Serve(countingListener{listener, &opened})
	t.Cleanup(server.Stop)
	client := newClient(t, listener.Addr().String(), userprofile.Config{Connections: 3})
	for range 9 {
		if err := getUser(t, client); err != nil {
			t.Fatal(err)
		}
	}
	if n := opened.Load(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}

type countingListener struct {
	net.Listener
	opened *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.opened.Add(1)
	}
	return conn, err
}
