// Package userprofile is a client of the userprofile service.
//
// Make one [Client], share it between all goroutines, and close it at the end.
// It balances calls over all addresses of the target, waits until a server can
// be reached, and retries calls that fail with UNAVAILABLE or that an
// overloaded server refuses. Every call has a deadline.
//
//	client, err := userprofile.NewClient("localhost:50051", userprofile.Config{})
//	if err != nil {
//		return err
//	}
//	defer client.Close()
//	user, err := client.GetUser(ctx, "johndoe")
//
// The generated stubs are in userprofile.example/go/gen/userprofile/v1.
package userprofile

//go:generate ../../tools/node_modules/.bin/buf generate
//go:generate cp ../../protos/userprofile/v1/service_config.json gen/userprofile/v1/

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	_ "google.golang.org/grpc/health" // makes healthCheckConfig work
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

// DefaultTimeout is the timeout of calls if neither their context nor the
// [Config] sets one.
const DefaultTimeout = 5 * time.Second

// keepaliveTime is the interval of pings on an idle connection. The server
// allows one every 20 seconds.
const keepaliveTime = 30 * time.Second

// maxRequestBytes is what the server accepts by default, and more than twice
// the largest valid request. Its refusal of a larger one would be retried for
// seconds, like that of an overloaded server.
const maxRequestBytes = 64 * 1024

// maxResponseBytes is enough for a hundred profiles of 600 KB.
const maxResponseBytes = 64 * 1024 * 1024

// reconnect is the backoff between connection attempts. gRPC's default, one
// second to two minutes, would exceed every deadline after a longer outage.
var reconnect = grpc.ConnectParams{
	Backoff: backoff.Config{
		BaseDelay:  100 * time.Millisecond,
		MaxDelay:   1000 * time.Millisecond,
		Multiplier: backoff.DefaultConfig.Multiplier,
		Jitter:     backoff.DefaultConfig.Jitter,
	},
	MinConnectTimeout: 20 * time.Second, // gRPC's own
}

// User is the public profile of a user. A field without a value is nil; an
// empty string and false are values.
type User = userprofilev1.User

// Client is a client of one userprofile service. It is safe for concurrent use.
//
// The context of a call that a gRPC server is serving may be passed on: its
// deadline, request id and trace context then apply to the client's calls too.
// Metadata of the outgoing context is sent.
type Client struct {
	target  string
	options []grpc.DialOption
	conns   connections
	timeout time.Duration
	token   TokenSource // nil if there is none
	secure  bool
	closing context.Context // ends with the client
	close   func() error
}

// NewClient returns a client of the service at target: host:port, unix:path or
// another name that gRPC resolves. It connects on the first call.
func NewClient(target string, config Config) (*Client, error) {
	if err := config.check(target); err != nil {
		return nil, fmt.Errorf("userprofile: %w", err)
	}
	transport, err := config.transport()
	if err != nil {
		return nil, fmt.Errorf("userprofile: %w", err)
	}
	token, err := config.tokenSource()
	if err != nil {
		return nil, fmt.Errorf("userprofile: %w", err)
	}
	c := &Client{
		target: target,
		options: append([]grpc.DialOption{
			grpc.WithTransportCredentials(transport),
			grpc.WithDisableServiceConfig(), // a DNS TXT record could replace ours
			grpc.WithKeepaliveParams(keepalive.ClientParameters{
				Time:                keepaliveTime,
				Timeout:             10 * time.Second,
				PermitWithoutStream: true,
			}),
			grpc.WithConnectParams(reconnect),
			grpc.WithDefaultCallOptions(
				grpc.MaxCallSendMsgSize(maxRequestBytes),
				grpc.MaxCallRecvMsgSize(maxResponseBytes),
				grpc.WaitForReady(!config.FailFast),
			),
		}, config.DialOptions...),
		timeout: cmp.Or(config.Timeout, DefaultTimeout),
		token:   token,
		secure:  config.secure(),
	}
	for range cmp.Or(config.Connections, 1) {
		conn, err := c.connect(config.HealthChecking)
		if err != nil {
			return nil, errors.Join(err, c.conns.close())
		}
		c.conns.add(conn)
	}
	closing, end := context.WithCancel(context.Background())
	c.closing = closing
	c.close = sync.OnceValue(func() error {
		end()
		return c.conns.close()
	})
	return c, nil
}

func (c *Client) connect(healthChecking bool) (*grpc.ClientConn, error) {
	serviceConfig, err := serviceConfig(healthChecking)
	if err != nil {
		return nil, err
	}
	// The caller's options, which come last, override it.
	options := append([]grpc.DialOption{grpc.WithDefaultServiceConfig(serviceConfig)}, c.options...)
	return grpc.NewClient(c.target, options...)
}

// GetUser returns the profile of one user. Errors are [*Error]; that of a
// username that no user has is [ErrUserNotFound] by [errors.Is].
func (c *Client) GetUser(ctx context.Context, username string, options ...CallOption) (*User, error) {
	if err := checkUsername(username, "username"); err != nil {
		return nil, err
	}
	call, err := c.begin(ctx, options)
	if err != nil {
		return nil, err
	}
	defer call.end()
	request := &userprofilev1.GetUserRequest{Username: username, ReadMask: call.readMask}
	response, err := call.conn.stub.GetUser(call.ctx, request, call.options...)
	if err != nil {
		return nil, c.failure(call, err)
	}
	user := response.GetUser()
	if user == nil || user.GetUsername() != username {
		return nil, newError(unreadable, call.trailer, call.requestID)
	}
	return user, nil
}

// CheckHealth reports whether one of the target's servers says that it is
// SERVING, by the standard protocol. It doesn't wait for a server, and connects
// anew: the connections of a client with [Config.HealthChecking] never reach a
// server that isn't serving. Errors are [*Error].
func (c *Client) CheckHealth(ctx context.Context, options ...CallOption) (bool, error) {
	call, err := c.begin(ctx, append([]CallOption{WithGRPC(grpc.WaitForReady(false))}, options...))
	if err != nil {
		return false, err
	}
	defer call.end()
	conn, err := c.connect(false)
	if err != nil {
		return false, c.failure(call, err)
	}
	defer conn.Close()
	request := &healthpb.HealthCheckRequest{Service: userprofilev1.UserProfileService_ServiceDesc.ServiceName}
	response, err := healthpb.NewHealthClient(conn).Check(call.ctx, request, call.options...)
	if err != nil {
		return false, c.failure(call, err)
	}
	return response.GetStatus() == healthpb.HealthCheckResponse_SERVING, nil
}

// Close closes the connections. Calls in progress fail, and later ones, with
// [ErrClosed]. It may be called more than once.
func (c *Client) Close() error {
	return c.close()
}

// failure returns the error of a call.
func (c *Client) failure(call *call, err error) *Error {
	s := status.Convert(err)
	switch {
	case (s.Code() == codes.Canceled || s.Code() == codes.Unavailable) && c.closing.Err() != nil:
		return errClosed(call.requestID)
	case s.Code() == codes.Canceled && call.ctx.Err() != nil:
		return cancelled(s, call.requestID)
	}
	return newError(explain(call.conn.ClientConn, s), call.trailer, call.requestID)
}

// explain says why a call has failed. The deadline may have passed before a
// retry, while no server could be reached.
func explain(conn *grpc.ClientConn, s *status.Status) *status.Status {
	if s.Code() == codes.DeadlineExceeded && conn.GetState() == connectivity.TransientFailure {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		// In TransientFailure, gRPC fails this call at once and sends nothing.
		var nothing emptypb.Empty
		refusal := conn.Invoke(ctx, "/grpc.health.v1.Health/Check", &nothing, &nothing, grpc.WaitForReady(false))
		if seen := status.Convert(refusal); seen.Code() == codes.Unavailable {
			return neverReached(seen.Message())
		}
	}
	return inWords(s)
}
