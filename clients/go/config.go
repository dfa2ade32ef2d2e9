package userprofile

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/credentials/local"
)

// maxConnections is far more than a server has processes.
const maxConnections = 64

// Config configures a [Client]. The zero value means plaintext without a token.
type Config struct {
	// TLS turns TLS on; see [LoadTLS]. If TLSFiles is nil too, there is none.
	TLS *tls.Config

	// TLSFiles turns TLS on, with certificates in files that may be replaced
	// while the client is in use. Set TLS or TLSFiles, not both.
	TLSFiles *TLSFiles

	// Token is sent with every call as "authorization: Bearer …". Without TLS,
	// it is sent to this machine only, unless AllowPlaintextToken is set.
	Token string

	// TokenSource returns the token, instead of Token.
	TokenSource TokenSource

	// TokenFile is a file with the token, instead of Token. It is read again
	// when it has changed; while it is missing or invalid, the last valid token
	// stays in use.
	TokenFile string

	// AllowPlaintextToken allows sending the token without TLS, for example
	// where a service mesh encrypts the connection.
	AllowPlaintextToken bool

	// Timeout is the timeout of calls whose context has no deadline. Zero
	// means [DefaultTimeout].
	Timeout time.Duration

	// FailFast makes calls fail after their retries if no server can be
	// reached. Otherwise they wait for one until their deadline, and so survive
	// a restart.
	FailFast bool

	// Connections is the number of connections to each address; zero means one.
	// With more, calls take turns, so that they reach several processes of one
	// server (serve --processes). Retries of a call stay on its connection.
	Connections int

	// HealthChecking watches each server's health by the standard protocol, and
	// sends no calls to servers that report NOT_SERVING. The watch carries no
	// token; a server or gateway that refuses it gets no calls at all. Without
	// health checking, a retry goes to the next server.
	HealthChecking bool

	// DialOptions are added last and override the fields above: interceptors,
	// tracing, resolvers, keepalive, no retries ([grpc.WithDisableRetry]) and the
	// like.
	DialOptions []grpc.DialOption
}

// TokenSource returns the token of a call, whose context it gets. It is called
// for each call, so it should keep a token until that expires.
type TokenSource func(ctx context.Context) (string, error)

func (c Config) check(target string) error {
	switch {
	case target == "":
		return errors.New("the target is empty; it must be host:port or unix:path")
	case c.Timeout < 0:
		return errors.New("the timeout must not be negative")
	case c.Connections < 0 || c.Connections > maxConnections:
		return fmt.Errorf("the number of connections must be 1 to %d, not %d", maxConnections, c.Connections)
	case c.TLS != nil && c.TLSFiles != nil:
		return errors.New("set TLS or TLSFiles, not both")
	case c.tokens() > 1:
		return errors.New("set one of Token, TokenSource and TokenFile")
	case c.localToken() && !isLoopback(target):
		return fmt.Errorf("the token would be sent to %s in plaintext; set TLS, TLSFiles or AllowPlaintextToken", target)
	}
	return nil
}

func (c Config) secure() bool { return c.TLS != nil || c.TLSFiles != nil }

func (c Config) tokens() int {
	count := 0
	for _, given := range []bool{c.Token != "", c.TokenSource != nil, c.TokenFile != ""} {
		if given {
			count++
		}
	}
	return count
}

// localToken reports whether there is a token that may be sent to this machine
// only.
func (c Config) localToken() bool {
	return c.tokens() > 0 && !c.secure() && !c.AllowPlaintextToken
}

func (c Config) transport() (credentials.TransportCredentials, error) {
	switch {
	case c.TLS != nil:
		return credentials.NewTLS(c.TLS), nil
	case c.TLSFiles != nil:
		return newFileCredentials(*c.TLSFiles)
	case c.localToken():
		// A name may resolve to any address; these credentials check the address itself.
		return local.NewCredentials(), nil
	}
	return insecure.NewCredentials(), nil
}

// tokenSource returns nil if there is no token.
func (c Config) tokenSource() (TokenSource, error) {
	switch {
	case c.TokenFile != "":
		file, err := newTokenFile(c.TokenFile)
		if err != nil {
			return nil, err
		}
		return func(context.Context) (string, error) { return file.current(), nil }, nil
	case c.Token != "":
		return func(context.Context) (string, error) { return c.Token, nil }, checkToken(c.Token)
	}
	return c.TokenSource, nil
}

// isLoopback returns false for every form of target that it doesn't know.
func isLoopback(target string) bool {
	if strings.HasPrefix(target, "unix:") {
		return true
	}
	address := strings.TrimPrefix(target, "dns:///")
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address // without a port
	}
	return strings.EqualFold(host, "localhost") || net.ParseIP(host).IsLoopback()
}
