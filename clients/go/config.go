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

	// HealthChecking watches each server's health by the standard protocol, and
	// sends no calls to servers that report NOT_SERVING. The watch carries no
	// token; a server or gateway that refuses it gets no calls at all. Without
	// health checking, a retry goes to the next server.
	HealthChecking bool

	// DialOptions are added last and override the fields above: tracing,
	// keepalive and the like.
	DialOptions []grpc.DialOption
}

func (c Config) credentials(target string) ([]grpc.DialOption, error) {
	transport := insecure.NewCredentials()
	var err error
	switch {
	case c.TLS != nil && c.TLSFiles != nil:
		return nil, errors.New("userprofile: set TLS or TLSFiles, not both")
	case c.TLS != nil:
		transport = credentials.NewTLS(c.TLS)
	case c.TLSFiles != nil:
		if transport, err = newFileCredentials(*c.TLSFiles); err != nil {
			return nil, err
		}
	}
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	if token == nil {
		return []grpc.DialOption{grpc.WithTransportCredentials(transport)}, nil
	}
	secure := c.TLS != nil || c.TLSFiles != nil
	if !secure && !c.AllowPlaintextToken {
		if !isLoopback(target) {
			return nil, fmt.Errorf("userprofile: the token would be sent to %s in plaintext; set TLS, TLSFiles or AllowPlaintextToken", target)
		}
		// A name may resolve to any address; these credentials check the address itself.
		transport = local.NewCredentials()
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(bearer{token, secure}),
	}, nil
}

// token returns what returns the token, nil if there is none.
func (c Config) token() (func() string, error) {
	switch {
	case c.Token != "" && c.TokenFile != "":
		return nil, errors.New("userprofile: set Token or TokenFile, not both")
	case c.TokenFile != "":
		file, err := newTokenFile(c.TokenFile)
		if err != nil {
			return nil, err
		}
		return file.current, nil
	case c.Token != "":
		if err := checkToken(c.Token); err != nil {
			return nil, fmt.Errorf("userprofile: %w", err)
		}
		return func() string { return c.Token }, nil
	default:
		return nil, nil
	}
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
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

type bearer struct {
	token  func() string
	secure bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token()}, nil
}

func (b bearer) RequireTransportSecurity() bool {
	return b.secure
}
