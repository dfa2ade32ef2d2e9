// Package userprofile asks a userprofile service who a user is.
//
// A [Client] is made once, shared by all goroutines and closed at the end. It
// spreads its calls over all addresses of the target, leaves out servers whose
// health check says that they don't serve, and tries again what a server was
// unavailable for. Every call has a deadline.
//
// The generated stubs are in userprofile/clients/go/gen/userprofile/v1.
package userprofile

//go:generate ../../tools/node_modules/.bin/buf generate

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	_ "google.golang.org/grpc/health" // makes healthCheckConfig work
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	userprofilev1 "userprofile/clients/go/gen/userprofile/v1"
)

// DefaultTimeout is how long a call may take if neither its context nor the
// [Config] says otherwise.
const DefaultTimeout = 5 * time.Second

// The throttling stops retries while most calls fail, so that they don't
// multiply the load of a server in trouble.
const serviceConfig = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"healthCheckConfig": {"serviceName": "userprofile.v1.UserProfileService"},
	"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
	"methodConfig": [{
		"name": [{"service": "userprofile.v1.UserProfileService"}],
		"retryPolicy": {
			"maxAttempts": 4,
			"initialBackoff": "0.1s",
			"maxBackoff": "1s",
			"backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE"]
		}
	}]
}`

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
	options = append(options, grpc.WithDefaultServiceConfig(serviceConfig))
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
	ctx, cancel := c.withDeadline(ctx)
	defer cancel()
	response, err := c.stub.GetUser(ctx, &userprofilev1.GetUserRequest{Username: username})
	if err != nil {
		return nil, newError(status.Convert(err))
	}
	return response.GetUser(), nil
}

// BatchGetUsers returns one result for each of up to 100 usernames, in their
// order. Its own error, an [*Error], means that nothing could be asked.
func (c *Client) BatchGetUsers(ctx context.Context, usernames []string) ([]Result, error) {
	ctx, cancel := c.withDeadline(ctx)
	defer cancel()
	var trailer metadata.MD
	request := &userprofilev1.BatchGetUsersRequest{Usernames: usernames}
	response, err := c.stub.BatchGetUsers(ctx, request, grpc.Trailer(&trailer))
	if err != nil {
		return nil, newError(status.Convert(err))
	}
	results := make([]Result, len(response.GetResults()))
	for i, result := range response.GetResults() {
		if user := result.GetUser(); user != nil {
			results[i].User = user
			continue
		}
		results[i].Err = newResultError(result.GetError(), trailer)
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
