package userprofile

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

const requestIDKey = "x-request-id"

// metadataValue is what metadata can carry.
var metadataValue = regexp.MustCompile(`^[ -~]*$`)

// CallOption is an option of a single call.
type CallOption func(*callOptions)

type callOptions struct {
	readMask  *fieldmaskpb.FieldMask
	requestID string
	grpc      []grpc.CallOption
}

// WithFields requests only these fields of [User], by their names in the
// contract: "email", "full_name". The others are nil; the username is always
// set. Without it, a call returns all that the caller may see.
func WithFields(names ...string) CallOption {
	// An empty mask would request all fields.
	mask := &fieldmaskpb.FieldMask{Paths: append([]string{"username"}, names...)}
	return func(options *callOptions) { options.readMask = mask }
}

// WithRequestID sets the id of the call in the server's log: 1 to 128 visible
// ASCII characters. The default is the id of the call that is being served, see
// [Client], otherwise a random one.
func WithRequestID(id string) CallOption {
	return func(options *callOptions) { options.requestID = id }
}

// WithGRPC passes options on to gRPC: [grpc.WaitForReady], [grpc.Header] and the
// like.
func WithGRPC(options ...grpc.CallOption) CallOption {
	return func(chosen *callOptions) { chosen.grpc = append(chosen.grpc, options...) }
}

// call is a call from its beginning to its end.
type call struct {
	ctx       context.Context
	end       context.CancelFunc
	conn      connection
	options   []grpc.CallOption
	readMask  *fieldmaskpb.FieldMask
	requestID string
	trailer   metadata.MD
}

// begin returns a call with its deadline, metadata and token. Whoever began it
// ends it.
func (c *Client) begin(ctx context.Context, options []CallOption) (*call, error) {
	if c.closing.Err() != nil {
		return nil, errClosed("")
	}
	var chosen callOptions
	for _, option := range options {
		option(&chosen)
	}
	ctx, requestID := propagate(ctx, chosen.requestID)
	if !requestIDForm.MatchString(requestID) {
		return nil, unsent(codes.InvalidArgument, "A request id must have 1 to 128 visible ASCII characters.", "", nil)
	}
	ctx, cancel := c.withDeadline(ctx)
	// gRPC itself would wait for the time of a call's next retry.
	stop := context.AfterFunc(c.closing, cancel)
	end := func() {
		stop()
		cancel()
	}
	begun := &call{ctx: ctx, end: end, conn: c.conns.next(), readMask: chosen.readMask, requestID: requestID}
	begun.options = []grpc.CallOption{grpc.Trailer(&begun.trailer)}
	if c.token != nil {
		made := false
		defer func() {
			if !made { // the token source may panic, too
				end()
			}
		}()
		token, err := c.token(ctx)
		if err == nil {
			err = checkToken(token)
		}
		if err != nil {
			return nil, c.noToken(ctx, err, requestID)
		}
		made = true
		begun.options = append(begun.options, grpc.PerRPCCredentials(bearer{token, c.secure}))
	}
	begun.options = append(begun.options, chosen.grpc...)
	return begun, nil
}

// noToken fails like a call without a token, unless the call has ended while
// the source was at work. The text is the source's own.
func (c *Client) noToken(ctx context.Context, err error, requestID string) *Error {
	code := codes.Unauthenticated
	if ended := ctx.Err(); ended != nil {
		if c.closing.Err() != nil {
			return errClosed(requestID)
		}
		code, err = status.FromContextError(ended).Code(), errors.Join(err, ended)
	}
	return unsent(code, "There is no token: "+err.Error(), requestID, err)
}

func (c *Client) withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.timeout)
}

// propagate returns the context of a call with its request id and trace context,
// and the id. They come, in this order, from the arguments, from the metadata to
// be sent, and from that of the call that is being served.
func propagate(ctx context.Context, requestID string) (context.Context, string) {
	outgoing, _ := metadata.FromOutgoingContext(ctx) // a copy
	if outgoing == nil {
		outgoing = metadata.MD{}
	}
	if requestID == "" {
		requestID = first(outgoing[requestIDKey])
	}
	if requestID == "" {
		requestID = first(metadata.ValueFromIncomingContext(ctx, requestIDKey))
		if !requestIDForm.MatchString(requestID) { // another's mistake is no reason to fail
			requestID = rand.Text()
		}
	}
	outgoing.Set(requestIDKey, requestID)
	if len(outgoing["traceparent"]) == 0 {
		for _, key := range []string{"traceparent", "tracestate"} {
			for _, value := range metadata.ValueFromIncomingContext(ctx, key) {
				if metadataValue.MatchString(value) {
					outgoing.Append(key, value)
				}
			}
		}
	}
	return metadata.NewOutgoingContext(ctx, outgoing), requestID
}

func first(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// bearer is the token of one call.
type bearer struct {
	token  string
	secure bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.secure }

// String keeps the token out of logs.
func (b bearer) String() string { return fmt.Sprintf("bearer token, secure: %t", b.secure) }
