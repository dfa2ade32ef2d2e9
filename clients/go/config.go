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

// Config says how to reach the service. The zero value is plaintext without a
// token.
type Config struct {
	// TLS turns TLS on; see [LoadTLS]. Nil means plaintext.
	TLS *tls.Config

	// Token is sent with every call as "authorization: Bearer …". Over
	// plaintext it goes to this machine only, unless AllowPlaintextToken.
	Token string

	// AllowPlaintextToken lets the token cross a network in plaintext, for
	// where something else encrypts it, for example a service mesh.
	AllowPlaintextToken bool

	// Timeout bounds the calls whose context has no deadline. Zero means
	// [DefaultTimeout].
	Timeout time.Duration

	// FailFast lets calls fail, after their retries, where no server can be
	// reached. Otherwise they wait for one until their deadline, so that a
	// restart isn't felt.
	FailFast bool

	// HealthChecking watches each server's health by the standard protocol, and
	// leaves those alone that say NOT_SERVING. The watch carries no token, and a
	// server or gateway that refuses it is not called at all; without it, a
	// retry goes to the next server.
	HealthChecking bool

	// DialOptions come after, and so win over, what the fields above set:
	// tracing, keepalive and the like.
	DialOptions []grpc.DialOption
}

func (c Config) credentials(target string) ([]grpc.DialOption, error) {
	transport := insecure.NewCredentials()
	if c.TLS != nil {
		transport = credentials.NewTLS(c.TLS)
	}
	if c.Token == "" {
		return []grpc.DialOption{grpc.WithTransportCredentials(transport)}, nil
	}
	if strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("userprofile: the token has a space, a line break or another character that no token has")
	}
	if c.TLS == nil && !c.AllowPlaintextToken {
		if !isLoopback(target) {
			return nil, fmt.Errorf("userprofile: the token would go to %s in plaintext; set TLS, or AllowPlaintextToken", target)
		}
		// A name is only a promise: this one checks the address that was connected to.
		transport = local.NewCredentials()
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(bearer{token: c.Token, secure: c.TLS != nil}),
	}, nil
}

// isLoopback says no to every form of target that it doesn't know.
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
	token  string
	secure bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool {
	return b.secure
}
