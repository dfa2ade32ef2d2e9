// Package userprofile asks a userprofile service who a user is.
//
// A [Client] is made once, shared by all goroutines and closed at the end. It
// spreads its calls over all addresses of the target, waits for a server that
// can be reached, and tries again what a server was unavailable for. Every call
// has a deadline.
//
// The generated stubs are in userprofile/clients/go/gen/userprofile/v1.
package userprofile

//go:generate ../../tools/node_modules/.bin/buf generate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	_ "google.golang.org/grpc/health" // makes healthCheckConfig work
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	userprofilev1 "userprofile/clients/go/gen/userprofile/v1"
)

// DefaultTimeout is how long a call may take if neither its context nor the
// [Config] says otherwise.
const DefaultTimeout = 5 * time.Second

// keepaliveTime is between two pings on a quiet connection. Servers of ours
// allow one every 20 seconds.
const keepaliveTime = 30 * time.Second

// maxResponseBytes is enough for a hundred profiles, whatever somebody has put
// into their names.
const maxResponseBytes = 64 * 1024 * 1024

// reconnect is between attempts to connect again. gRPC's own, a second to two
// minutes, outlasts every deadline once a server has been away for a while.
var reconnect = grpc.ConnectParams{
	Backoff: backoff.Config{
		BaseDelay:  100 * time.Millisecond,
		MaxDelay:   1000 * time.Millisecond,
		Multiplier: backoff.DefaultConfig.Multiplier,
		Jitter:     backoff.DefaultConfig.Jitter,
	},
	MinConnectTimeout: 20 * time.Second, // gRPC's own
}

// Each failure costs a token, each success returns one (the core of other
// languages takes 1 for 0), and there are no retries below half of maxTokens: a lost server among several is made up for,
// and so is for any time one that has lost its store; a service that is down
// isn't hit with five times the load for long.
const serviceConfig = `{
	%s
	"loadBalancingConfig": [{"round_robin": {}}],
	"retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.999},
	"methodConfig": [{
		"name": [{"service": "userprofile.v1.UserProfileService"}],
		"retryPolicy": {
			"maxAttempts": 5,
			"initialBackoff": "0.05s",
			"maxBackoff": "2s",
			"backoffMultiplier": 4,
			"retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
		}
	}]
}`

const healthChecking = `"healthCheckConfig": {"serviceName": "userprofile.v1.UserProfileService"},`

// User is the public profile of a user. A field that the profile lacks is nil;
// an empty string and false are values.
type User = userprofilev1.User

// Result is the outcome of one name of a batch: User is set, or Err is, which
// is then what GetUser would have returned.
type Result struct {
	User *User
	Err  error
}

// Client asks one userprofile service. It is safe for concurrent use.
type Client struct {
	conn    *grpc.ClientConn
	stub    userprofilev1.UserProfileServiceClient
	timeout time.Duration
}

// NewClient returns a client of the service at target: host:port, unix:path or
// another name that gRPC resolves. It connects with the first call, not before.
func NewClient(target string, config Config) (*Client, error) {
	if target == "" {
		return nil, errors.New("userprofile: the target is empty; it has to be host:port or unix:path")
	}
	if config.Timeout < 0 {
		return nil, errors.New("userprofile: the timeout is negative")
	}
	options, err := config.credentials(target)
	if err != nil {
		return nil, err
	}
	health := ""
	if config.HealthChecking {
		health = healthChecking
	}
	options = append(options,
		grpc.WithDefaultServiceConfig(fmt.Sprintf(serviceConfig, health)),
		grpc.WithDisableServiceConfig(), // else that of a DNS TXT record would replace it
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:                keepaliveTime,
			Timeout:             10 * time.Second,
			PermitWithoutStream: true,
		}),
		grpc.WithConnectParams(reconnect),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes), grpc.WaitForReady(!config.FailFast)),
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

// GetUser returns the profile of one user. The error is [ErrUserNotFound] if
// nobody has this username, by [errors.Is], and always an [*Error].
func (c *Client) GetUser(ctx context.Context, username string) (*User, error) {
	if err := checkUnicode(username, "username"); err != nil {
		return nil, err
	}
	ctx, cancel := c.withDeadline(ctx)
	defer cancel()
	var trailer metadata.MD
	response, err := c.stub.GetUser(ctx, &userprofilev1.GetUserRequest{Username: username}, grpc.Trailer(&trailer))
	if err != nil {
		return nil, newError(inWords(status.Convert(err)), trailer)
	}
	user := response.GetUser()
	if user == nil || user.GetUsername() != username {
		return nil, newError(notUnderstood, trailer)
	}
	return user, nil
}

// BatchGetUsers returns one result for each of up to 100 usernames, in their
// order. Its own error, an [*Error], means that nothing could be asked, or that
// there is no telling which answer is whose.
func (c *Client) BatchGetUsers(ctx context.Context, usernames []string) ([]Result, error) {
	for i, username := range usernames {
		if err := checkUnicode(username, fmt.Sprintf("usernames[%d]", i)); err != nil {
			return nil, err
		}
	}
	ctx, cancel := c.withDeadline(ctx)
	defer cancel()
	var trailer metadata.MD
	request := &userprofilev1.BatchGetUsersRequest{Usernames: usernames}
	response, err := c.stub.BatchGetUsers(ctx, request, grpc.Trailer(&trailer))
	if err != nil {
		return nil, newError(inWords(status.Convert(err)), trailer)
	}
	if len(response.GetResults()) != len(usernames) {
		return nil, newError(notUnderstood, trailer)
	}
	results := make([]Result, len(usernames))
	for i, result := range response.GetResults() {
		user, failure := result.GetUser(), result.GetError()
		switch {
		case user != nil && user.GetUsername() == usernames[i]:
			results[i].User = user
		case failure != nil:
			results[i].Err = newError(status.FromProto(failure), trailer)
		default: // nothing that is known here, or somebody else
			results[i].Err = newError(notUnderstood, trailer)
		}
	}
	return results, nil
}

// Close ends the connections; calls in progress fail.
func (c *Client) Close() error {
	return c.conn.Close()
}

func (c *Client) withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timeout)
}
