package userprofile

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
	"slices"
	"strings"

	"google.golang.org/grpc/status"

	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

// batchSize is the maximum number of usernames that the server accepts per call.
const batchSize = 100

// batchesInFlight is enough to keep a server busy while responses are on the
// network.
const batchesInFlight = 4

// Result is the result for one username: either User is set, or Err, an [*Error].
type Result struct {
	Username string
	User     *User
	Err      error
}

// GetUsers returns one result for each username, in order. It takes any number
// of them: each call requests 100, up to four calls are in flight, and
// [Config.Timeout] applies to each call, a deadline of ctx to all of them.
//
// Its error, an [*Error], means that a call failed as a whole. The other calls
// are then cancelled.
func (c *Client) GetUsers(ctx context.Context, usernames []string, options ...CallOption) ([]Result, error) {
	results := make([]Result, 0, len(usernames))
	for batch := range c.batches(ctx, slices.Values(usernames), options) {
		if batch.err != nil {
			return nil, batch.err
		}
		results = append(results, batch.results...)
	}
	return results, nil
}

// IterUsers is [Client.GetUsers] for more usernames than fit into memory: it takes
// them as they are needed, at most 400 ahead, and yields a result for each, in
// order. If a call fails as a whole, that is the error of all its usernames, and
// the next ones are requested nevertheless. Leave the loop to end it.
func (c *Client) IterUsers(ctx context.Context, usernames iter.Seq[string], options ...CallOption) iter.Seq[Result] {
	return func(yield func(Result) bool) {
		for batch := range c.batches(ctx, usernames, options) {
			for _, result := range batch.results {
				if !yield(result) {
					return
				}
			}
		}
	}
}

// batch has the results of one call. If the call failed as a whole, err is the
// error of all usernames that could be sent.
type batch struct {
	results  []Result
	err      error
	panicked any
}

// batches yields the batches in order, with the calls of the next few in flight.
func (c *Client) batches(ctx context.Context, usernames iter.Seq[string], options []CallOption) iter.Seq[batch] {
	return func(yield func(batch) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // ends the calls that nobody waits for any more
		var pending []<-chan batch
		deliver := func() bool {
			next := <-pending[0]
			pending = pending[1:]
			if next.panicked != nil {
				panic(next.panicked)
			}
			return yield(next)
		}
		begun := 0
		for names := range split(usernames) {
			pending = append(pending, c.start(ctx, names, begun, options))
			begun += len(names)
			if len(pending) == batchesInFlight && !deliver() {
				return
			}
		}
		for len(pending) > 0 {
			if !deliver() {
				return
			}
		}
	}
}

// start makes a call in a goroutine. If it panics, by the caller's token source
// or interceptor, so does whoever waits for it: nobody could recover it in here.
func (c *Client) start(ctx context.Context, usernames []string, first int, options []CallOption) <-chan batch {
	done := make(chan batch, 1)
	go func() {
		next := batch{panicked: "the goroutine of a call has ended"} // by runtime.Goexit
		defer func() {
			if value := recover(); value != nil {
				next.panicked = fmt.Sprintf("%v\n\n%s", value, debug.Stack())
			}
			done <- next
		}()
		next = c.getBatch(ctx, usernames, first, options)
	}()
	return done
}

// split consumes no more usernames than it yields.
func split(usernames iter.Seq[string]) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		var names []string
		for username := range usernames {
			if names = append(names, username); len(names) == batchSize {
				if !yield(names) {
					return
				}
				names = nil
			}
		}
		if len(names) > 0 {
			yield(names)
		}
	}
}

// getBatch makes one call. The first of its usernames is the one with that number
// of all that the caller requested.
func (c *Client) getBatch(ctx context.Context, usernames []string, first int, options []CallOption) batch {
	results := make([]Result, len(usernames))
	var sendable []string
	for i, username := range usernames {
		results[i].Username = username
		if results[i].Err = checkUsername(username, fieldOf(first+i)); results[i].Err == nil {
			sendable = append(sendable, username)
		}
	}
	if len(sendable) == 0 {
		return batch{results: results}
	}
	byUsername, call, err := c.callBatch(ctx, sendable, options)
	for i := range results {
		switch result := &results[i]; {
		case result.Err != nil: // it was not sent
		case err != nil:
			result.Err = err
		default:
			result.User, result.Err = call.outcome(byUsername[result.Username], result.Username, fieldOf(first+i))
		}
	}
	return batch{results: results, err: err}
}

func (c *Client) callBatch(ctx context.Context, usernames []string, options []CallOption) (
	map[string]*userprofilev1.BatchGetUsersResponse_Result, *call, error,
) {
	call, err := c.begin(ctx, options)
	if err != nil {
		return nil, nil, err
	}
	defer call.end()
	request := &userprofilev1.BatchGetUsersRequest{Usernames: usernames, ReadMask: call.readMask}
	response, err := call.conn.stub.BatchGetUsers(call.ctx, request, call.options...)
	if err != nil {
		return nil, nil, c.failure(call, err)
	}
	byUsername := make(map[string]*userprofilev1.BatchGetUsersResponse_Result, len(usernames))
	for _, result := range response.GetResults() {
		byUsername[result.GetUsername()] = result
	}
	return byUsername, call, nil
}

// outcome returns the user or the error of one result, which may be nil.
func (c *call) outcome(result *userprofilev1.BatchGetUsersResponse_Result, username, field string) (*User, error) {
	if user := result.GetUser(); user != nil && user.GetUsername() == username {
		return user, nil
	}
	failure := result.GetError()
	if failure == nil { // an unknown outcome, or another user
		return nil, newError(unreadable, c.trailer, c.requestID)
	}
	err := newError(status.FromProto(failure), c.trailer, c.requestID)
	for _, violation := range err.Violations {
		if strings.HasPrefix(violation.Field, "usernames[") { // its number in this call
			violation.Field = field
		}
	}
	return nil, err
}

func fieldOf(number int) string { return fmt.Sprintf("usernames[%d]", number) }
