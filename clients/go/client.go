// Package userprofile is a client of the userprofile service.
//
// Make one [Client], share it between all goroutines, and close it at the end.
// It balances calls over all addresses of the target, waits until a server can
// be reached, and retries calls that fail with UNAVAILABLE or that an
// overloaded server refuses. Every call has a deadline.
//
// The generated stubs are in userprofile.example/go/gen/userprofile/v1.
package userprofile

//go:generate ../../tools/node_modules/.bin/buf generate
//go:generate cp ../../protos/userprofile/v1/service_config.json gen/userprofile/v1/

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	_ "google.golang.org/grpc/health" // makes healthCheckConfig work
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

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

// Result is the result for one username of a batch: either User is set, or Err,
// the error that GetUser would have returned.
type Result struct {
	Username string
	User     *User
	Err      error
}

// CallOption is an option of a single call.
type CallOption func(*callOptions)

type callOptions struct {
	readMask *fieldmaskpb.FieldMask
}

// WithFields requests only these fields of [User], by their names in the
// contract: "email", "full_name". The others are nil; the username is always
// set. Without it, a call returns all that the caller may see.
func WithFields(names ...string) CallOption {
	// An empty mask would request all fields.
	mask := &fieldmaskpb.FieldMask{Paths: append([]string{"username"}, names...)}
	return func(options *callOptions) { options.readMask = mask }
}

func readMask(options []CallOption) *fieldmaskpb.FieldMask {
	var chosen callOptions
	for _, option := range options {
		option(&chosen)
	}
	return chosen.readMask
}

// Client is a client of one userprofile service. It is safe for concurrent use.
type Client struct {
	conn    *grpc.ClientConn
	stub    userprofilev1.UserProfileServiceClient
	timeout time.Duration
}

// NewClient returns a client of the service at target: host:port, unix:path or
// another name that gRPC resolves. It connects on the first call.
func NewClient(target string, config Config) (*Client, error) {
	if target == "" {
		return nil, errors.New("userprofile: the target is empty; it must be host:port or unix:path")
	}
	if config.Timeout < 0 {
		return nil, errors.New("userprofile: the timeout must not be negative")
	}
	options, err := config.credentials(target)
	if err != nil {
		return nil, err
	}
	serviceConfig, err := serviceConfig(config.HealthChecking)
	if err != nil {
		return nil, err
	}
	options = append(options,
		grpc.WithDefaultServiceConfig(serviceConfig),
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
	)
	conn, err := grpc.NewClient(target, append(options, config.DialOptions...)...)
	if err != nil {
		return nil, err
	}
	timeout := config.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	return &Client{conn, userprofilev1.NewUserProfileServiceClient(conn), timeout}, nil
}

// GetUser returns the profile of one user. Errors are [*Error]; that of a
// username that no user has is [ErrUserNotFound] by [errors.Is].
func (c *Client) GetUser(ctx context.Context, username string, options ...CallOption) (*User, error) {
	if err := checkUnicode(username, "username"); err != nil {
		return nil, err
	}
	ctx, cancel := c.withDeadline(ctx)
	defer cancel()
	var trailer metadata.MD
	request := &userprofilev1.GetUserRequest{Username: username, ReadMask: readMask(options)}
	response, err := c.stub.GetUser(ctx, request, grpc.Trailer(&trailer))
	if err != nil {
		return nil, newError(c.explain(status.Convert(err)), trailer)
	}
	user := response.GetUser()
	if user == nil || user.GetUsername() != username {
		return nil, newError(unreadable, trailer)
	}
	return user, nil
}

// BatchGetUsers returns one result for each of up to 100 usernames, in order.
// Its error, an [*Error], means that the call failed as a whole.
func (c *Client) BatchGetUsers(ctx context.Context, usernames []string, options ...CallOption) ([]Result, error) {
	for i, username := range usernames {
		if err := checkUnicode(username, fmt.Sprintf("usernames[%d]", i)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := c.withDeadline(ctx)
	defer cancel()
	var trailer metadata.MD
	request := &userprofilev1.BatchGetUsersRequest{Usernames: usernames, ReadMask: readMask(options)}
	response, err := c.stub.BatchGetUsers(ctx, request, grpc.Trailer(&trailer))
	if err != nil {
		return nil, newError(c.explain(status.Convert(err)), trailer)
	}
	byUsername := make(map[string]*userprofilev1.BatchGetUsersResponse_Result, len(usernames))
	for _, result := range response.GetResults() {
		byUsername[result.GetUsername()] = result
	}
	results := make([]Result, len(usernames))
	for i, username := range usernames {
		results[i].Username = username
		result := byUsername[username]
		user, failure := result.GetUser(), result.GetError()
		switch {
		case user != nil && user.GetUsername() == username:
			results[i].User = user
		case failure != nil:
			results[i].Err = newError(status.FromProto(failure), trailer)
		default: // an unknown outcome, or another user
			results[i].Err = newError(unreadable, trailer)
		}
	}
	return results, nil
}

// Close closes the connections. Calls in progress fail.
func (c *Client) Close() error {
	return c.conn.Close()
}

// explain says why a call has failed. The deadline may have passed before a
// retry, while no server could be reached.
func (c *Client) explain(s *status.Status) *status.Status {
	if s.Code() == codes.DeadlineExceeded && c.conn.GetState() == connectivity.TransientFailure {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		// In TransientFailure, gRPC fails this call at once and sends nothing.
		var nothing emptypb.Empty
		refusal := c.conn.Invoke(ctx, "/grpc.health.v1.Health/Check", &nothing, &nothing, grpc.WaitForReady(false))
		if seen := status.Convert(refusal); seen.Code() == codes.Unavailable {
			return neverReached(seen.Message())
		}
	}
	return inWords(s)
}

func (c *Client) withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timeout)
}
