package userprofile_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	userprofile "userprofile.example/go"
)

const callers = 8

// callUntil makes calls from so many goroutines until done, with the client's default timeout.
func callUntil(t *testing.T, client *userprofile.Client, done <-chan struct{}) (calls *atomic.Int64, wait func()) {
	calls = new(atomic.Int64)
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := client.GetUser(t.Context(), "johndoe"); err != nil {
					t.Error(err)
				}
				calls.Add(1)
			}
		})
	}
	return calls, all.Wait
}

func TestARestartIsNotFelt(t *testing.T) {
	server := startFakeServer(t)
	// gRPC retries no call whose response has begun, and Go's server, unlike ours, may send the headers apart from the
	// message. So the server is stopped while all calls wait in it.
	var hold atomic.Bool
	var held atomic.Int64
	server.fail = func(ctx context.Context, _ int) error {
		if !hold.Load() {
			return nil
		}
		held.Add(1)
		<-ctx.Done()
		return ctx.Err()
	}
	client := newClient(t, server.address, userprofile.Config{Timeout: 30 * time.Second})
	done := make(chan struct{})
	calls, wait := callUntil(t, client, done)
	for range 3 {
		for before := calls.Load(); calls.Load() < before+100; {
			time.Sleep(time.Millisecond)
		}
		held.Store(0)
		hold.Store(true)
		for held.Load() < callers {
			time.Sleep(time.Millisecond)
		}
		server.stop()
		hold.Store(false)
		time.Sleep(1200 * time.Millisecond)
		server.start(t)
	}
	for before := calls.Load(); calls.Load() < before+100; {
		time.Sleep(time.Millisecond)
	}
	close(done)
	wait()
}

func TestAServiceThatIsNotThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	for name, config := range map[string]userprofile.Config{
		"waiting":   {Timeout: 500 * time.Millisecond},
		"fail fast": {FailFast: true, Timeout: 30 * time.Second},
		"short":     {FailFast: true, Timeout: 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newClient(t, listener.Addr().String(), config).GetUser(t.Context(), "johndoe")
			failure, ok := asError(err)
			if !ok || failure.Code != codes.Unavailable || failure.Reason != userprofile.Unreachable ||
				status.Code(err) != codes.Unavailable || !strings.Contains(failure.Message, "refused") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAServiceThatIsNotThereIsNotHammered(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client := newClient(t, listener.Addr().String(), userprofile.Config{Timeout: 50 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for ctx.Err() == nil {
				client.GetUser(t.Context(), "johndoe")
			}
		})
	}
	began := time.Now()
	const attempts = 9
	for range attempts {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	took := time.Since(began)
	cancel()
	all.Wait()
	// 100 ms that grow by 1.6 to a second, each a fifth shorter at the least.
	if least := 3 * time.Second; took < least {
		t.Errorf("%d attempts to connect in %v", attempts, took)
	}
}

func TestAServerWithoutItsStoreIsNotFeltBesideOthers(t *testing.T) {
	servers := []*fakeServer{startFakeServer(t), startFakeServer(t), startFakeServer(t)}
	servers[0].fail = func(context.Context, int) error { return status.Error(codes.Unavailable, "no store") }
	addresses := manual.NewBuilderWithScheme("test")
	var endpoints []resolver.Endpoint
	for _, server := range servers {
		endpoints = append(endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: server.address}}})
	}
	addresses.InitialState(resolver.State{Endpoints: endpoints})
	client := newClient(t, "test:///all", userprofile.Config{
		Timeout:     30 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithResolvers(addresses)},
	})
	for range 20 { // in turn, the next is another server
		if _, err := client.GetUser(t.Context(), "johndoe"); err != nil {
			t.Error(err)
		}
	}
	var all sync.WaitGroup
	var failed atomic.Int64
	for range 50 {
		all.Go(func() {
			for range 60 {
				if _, err := client.GetUser(t.Context(), "johndoe"); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	// Among many calls a retry may meet the same server, but five times in one of 243.
	if n := failed.Load(); n > 60 {
		t.Errorf("%d of 3000 calls failed", n)
	}
}

// A gateway that wants a token on every path, and one that routes one service.
func TestGateways(t *testing.T) {
	server := startFakeServer(t)
	for name, gate := range map[string]func(request *http.Request) int{
		"wants a token": func(request *http.Request) int {
			if request.Header.Get("Authorization") != "Bearer abc" {
				return 401
			}
			return 200
		},
		"routes our service": func(request *http.Request) int {
			if !strings.HasPrefix(request.URL.Path, "/userprofile.v1.") {
				return 503
			}
			return 200
		},
		"is not let through": func(*http.Request) int { return 403 },
		"has no route":       func(*http.Request) int { return 404 },
	} {
		t.Run(name, func(t *testing.T) {
			gateway := startGateway(t, server.address, gate)
			want := map[string][2]codes.Code{ // with the right token, and with a wrong one
				"wants a token":      {codes.OK, codes.Unauthenticated},
				"routes our service": {codes.OK, codes.OK},
				"is not let through": {codes.PermissionDenied, codes.PermissionDenied},
				"has no route":       {codes.Unimplemented, codes.Unimplemented},
			}[name]
			for i, token := range []string{"abc", "wrong"} {
				err := getUser(t, newClient(t, gateway, userprofile.Config{Token: token}))
				if status.Code(err) != want[i] || (err != nil && !strings.Contains(err.Error(), "A gateway returned HTTP ")) {
					t.Errorf("with token %q: %v", token, err)
				}
			}
		})
	}
}

// startGateway forwards a request to the server if gate returns 200 for it.
func startGateway(t *testing.T, server string, gate func(*http.Request) int) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var http2 http.Protocols
	http2.SetUnencryptedHTTP2(true)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: server})
	proxy.Transport = &http.Transport{Protocols: &http2}
	gateway := &http.Server{Protocols: &http2, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code := gate(r); code != 200 {
			http.Error(w, http.StatusText(code), code)
			return
		}
		proxy.ServeHTTP(w, r)
	})}
	go gateway.Serve(listener)
	t.Cleanup(func() { gateway.Close() })
	return listener.Addr().String()
}
