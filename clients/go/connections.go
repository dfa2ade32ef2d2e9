package userprofile

import (
	"errors"
	"sync/atomic"

	"google.golang.org/grpc"

	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

// connection is what gRPC calls a channel: a connection to each address.
type connection struct {
	*grpc.ClientConn
	stub userprofilev1.UserProfileServiceClient
}

// connections take turns. gRPC has no setting for more than one to an address:
// it shares the connection among equal addresses.
type connections struct {
	all  []connection
	turn atomic.Uint32
}

func (c *connections) add(conn *grpc.ClientConn) {
	c.all = append(c.all, connection{conn, userprofilev1.NewUserProfileServiceClient(conn)})
}

func (c *connections) next() connection {
	return c.all[c.turn.Add(1)%uint32(len(c.all))]
}

func (c *connections) close() error {
	var problems []error
	for _, conn := range c.all {
		problems = append(problems, conn.Close())
	}
	return errors.Join(problems...)
}
