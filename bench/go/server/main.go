// Command benchserver is the far limit: the same service in Go, over Couchbase's Go SDK.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/couchbase/gocb/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

type profile struct {
	Username string  `json:"username"`
	Email    *string `json:"email"`
	FullName *string `json:"full_name"`
	Disabled *bool   `json:"disabled"`
}

type service struct {
	userprofilev1.UnimplementedUserProfileServiceServer
	collection *gocb.Collection
}

func (s *service) GetUser(ctx context.Context, request *userprofilev1.GetUserRequest) (*userprofilev1.GetUserResponse, error) {
	result, err := s.collection.Get("userprofile::"+request.GetUsername(), &gocb.GetOptions{Context: ctx})
	if errors.Is(err, gocb.ErrDocumentNotFound) {
		return nil, status.Error(codes.NotFound, "There is no such user.")
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, "The store can't be reached.")
	}
	var found profile
	if err := result.Content(&found); err != nil {
		return nil, status.Error(codes.DataLoss, "The document stored for this user is not a user profile.")
	}
	return &userprofilev1.GetUserResponse{User: &userprofilev1.User{
		Username: found.Username, Email: found.Email, FullName: found.FullName, Disabled: found.Disabled,
	}}, nil
}

func main() {
	store, err := url.Parse(os.Getenv("USERPROFILE_SERVER_STORE"))
	if err != nil {
		log.Fatal(err)
	}

	cluster, err := gocb.Connect("couchbase://"+store.Host, gocb.ClusterOptions{
		Authenticator: gocb.PasswordAuthenticator{
			Username: os.Getenv("USERPROFILE_SERVER_COUCHBASE_USERNAME"),
			Password: os.Getenv("USERPROFILE_SERVER_COUCHBASE_PASSWORD"),
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	bucket := cluster.Bucket(strings.TrimPrefix(store.Path, "/"))
	if err := bucket.WaitUntilReady(10*time.Second, &gocb.WaitUntilReadyOptions{
		ServiceTypes: []gocb.ServiceType{gocb.ServiceTypeKeyValue},
	}); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	userprofilev1.RegisterUserProfileServiceServer(server, &service{collection: bucket.DefaultCollection()})
	fmt.Printf("listening on %s\n", listener.Addr())
	log.Fatal(server.Serve(listener))
}
