package userprofile_test

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	userprofile "userprofile.example/go"
	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

// The clock of these tests stands still while anything runs, so they take no
// time and are exact.

func TestAnIdleConnectionIsPingedAsOftenAsTheServerAllows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(t)
		if err := getUser(t, newClient(t, "passthrough:///", network.config())); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // the pings that measure the bandwidth are over
		network.pings.Store(0)
		time.Sleep(5 * time.Minute)
		if pings := network.pings.Load(); pings != 10 {
			t.Errorf("%d pings in 5 minutes, want one every 30 s", pings)
		}
		if connections := network.connections.Load(); connections != 1 {
			t.Errorf("%d connections: the server has closed some for their pings", connections)
		}
	})
}

func TestALostConnectionIsNoticedWithoutCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newNetwork(t)
		if err := getUser(t, newClient(t, "passthrough:///", network.config())); err != nil {
			t.Fatal(err)
		}
		network.cut.Store(true)
		time.Sleep(time.Minute)
		if network.closed.Load() == 0 {
			t.Error("the client still has the connection after a minute")
		}
	})
}

// network is a server, and pipes to it.
type network struct {
	accepted    chan net.Conn
	pings       atomic.Int64 // that the server has received
	connections atomic.Int64
	closed      atomic.Int64 // of them, by the client
	cut         atomic.Bool  // what is sent arrives nowhere
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{accepted: make(chan net.Conn)}
	server := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
		MinTime: 20 * time.Second, PermitWithoutStream: true, // as the real server's
	}))
	userprofilev1.RegisterUserProfileServiceServer(server, new(fakeServer))
	go server.Serve(n)
	t.Cleanup(server.Stop)
	return n
}

func (n *network) config() userprofile.Config {
	dial := func(context.Context, string) (net.Conn, error) {
		client, server := net.Pipe()
		n.connections.Add(1)
		n.accepted <- &serverConn{Conn: server, network: n, preface: len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")}
		return &clientConn{Conn: client, network: n}, nil
	}
	return userprofile.Config{DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)}}
}

func (n *network) Accept() (net.Conn, error) {
	if conn, ok := <-n.accepted; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (n *network) Close() error {
	close(n.accepted)
	return nil
}

func (n *network) Addr() net.Addr { return &net.TCPAddr{} }

type clientConn struct {
	net.Conn
	network *network
	once    sync.Once
}

func (c *clientConn) Write(data []byte) (int, error) {
	if c.network.cut.Load() {
		return len(data), nil
	}
	return c.Conn.Write(data)
}

func (c *clientConn) Close() error {
	c.once.Do(func() { c.network.closed.Add(1) })
	return c.Conn.Close()
}

// serverConn counts the pings among the frames that it reads (RFC 9113).
type serverConn struct {
	net.Conn
	network *network
	preface int    // bytes before the first frame
	frame   []byte // what was read of its header
	rest    int    // bytes of its payload
}

func (c *serverConn) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	for _, b := range data[:n] {
		c.see(b)
	}
	return n, err
}

func (c *serverConn) see(b byte) {
	const header, ping, ack = 9, 6, 1
	switch {
	case c.preface > 0:
		c.preface--
	case c.rest > 0:
		c.rest--
	default:
		c.frame = append(c.frame, b)
		if len(c.frame) < header {
			return
		}
		if c.frame[3] == ping && c.frame[4]&ack == 0 {
			c.network.pings.Add(1)
		}
		c.rest = int(binary.BigEndian.Uint32(c.frame) >> 8)
		c.frame = nil
	}
}
