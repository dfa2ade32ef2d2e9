package userprofile

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
)

// TLSFiles names the PEM files that [LoadTLS] takes. They are read anew for each
// connection, so that they may be replaced at any time; while they are missing
// or invalid, the last good ones are used. Open connections go on until they
// end.
type TLSFiles struct {
	CA, Cert, Key string

	// ServerName is the name to expect in the server's certificate, if it isn't
	// the host of the target.
	ServerName string
}

// fileCredentials are TLS credentials whose files are read for each handshake.
type fileCredentials struct {
	credentials.TransportCredentials
	files TLSFiles
	last  *atomic.Pointer[tls.Config] // the last good one
}

func newFileCredentials(files TLSFiles) (credentials.TransportCredentials, error) {
	config, err := files.load()
	if err != nil {
		return nil, err
	}
	c := &fileCredentials{credentials.NewTLS(config), files, new(atomic.Pointer[tls.Config])}
	c.last.Store(config)
	return c, nil
}

func (c *fileCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if config, err := c.files.load(); err == nil {
		c.last.Store(config)
	}
	return credentials.NewTLS(c.last.Load()).ClientHandshake(ctx, authority, conn)
}

func (c *fileCredentials) Clone() credentials.TransportCredentials {
	return &fileCredentials{c.TransportCredentials.Clone(), c.files, c.last}
}
