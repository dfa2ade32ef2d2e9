package userprofile_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	userprofile "userprofile.example/go"
	userprofilev1 "userprofile.example/go/gen/userprofile/v1"
)

// fakeServer stands in for what the real server can't do: TLS, tokens, and
// failing on demand.
type fakeServer struct {
	userprofilev1.UnimplementedUserProfileServiceServer
	address string
	health  *health.Server
	stop    func()
	fail    func(ctx context.Context, attempt int) error
	user    *userprofilev1.GetUserResponse       // instead of the requested user
	batch   *userprofilev1.BatchGetUsersResponse // likewise

	mutex    sync.Mutex
	metadata []metadata.MD // of each attempt
	readMask []*fieldmaskpb.FieldMask
}

func (s *fakeServer) GetUser(_ context.Context, request *userprofilev1.GetUserRequest) (*userprofilev1.GetUserResponse, error) {
	if s.user != nil {
		return s.user, nil
	}
	return &userprofilev1.GetUserResponse{User: &userprofile.User{Username: request.GetUsername()}}, nil
}

func (s *fakeServer) BatchGetUsers(ctx context.Context, request *userprofilev1.BatchGetUsersRequest) (*userprofilev1.BatchGetUsersResponse, error) {
	if s.batch != nil {
		grpc.SetTrailer(ctx, metadata.Pairs("x-request-id", "the-batch"))
		return s.batch, nil
	}
	response := new(userprofilev1.BatchGetUsersResponse)
	for _, username := range request.GetUsernames() {
		response.Results = append(response.Results, foundUser(username))
	}
	return response, nil
}

func (s *fakeServer) intercept(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	received, _ := metadata.FromIncomingContext(ctx)
	s.mutex.Lock()
	s.metadata = append(s.metadata, received)
	if request, ok := request.(interface{ GetReadMask() *fieldmaskpb.FieldMask }); ok { // a health check has none
		s.readMask = append(s.readMask, request.GetReadMask())
	}
	attempt := len(s.metadata)
	s.mutex.Unlock()
	if s.fail != nil {
		if err := s.fail(ctx, attempt); err != nil {
			return nil, err
		}
	}
	return handle(ctx, request)
}

func (s *fakeServer) attempts() []metadata.MD {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.metadata
}

// masks returns the read masks since it was last called.
func (s *fakeServer) masks() []*fieldmaskpb.FieldMask {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	masks := s.readMask
	s.readMask = nil
	return masks
}

func startFakeServer(t *testing.T, options ...grpc.ServerOption) *fakeServer {
	t.Helper()
	fake := &fakeServer{address: "127.0.0.1:0", health: health.NewServer()}
	fake.start(t, options...)
	return fake
}

// start listens, again on the same port if the server was stopped.
func (s *fakeServer) start(t *testing.T, options ...grpc.ServerOption) {
	t.Helper()
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	s.health.SetServingStatus(userprofilev1.UserProfileService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	server := grpc.NewServer(append(options, grpc.UnaryInterceptor(s.intercept))...)
	userprofilev1.RegisterUserProfileServiceServer(server, s)
	healthpb.RegisterHealthServer(server, s.health)
	go server.Serve(listener)
	s.stop = server.Stop
	t.Cleanup(server.Stop)
}

// asError is errors.AsType, which Go has since 1.26.
func asError(err error) (*userprofile.Error, bool) {
	var failure *userprofile.Error
	found := errors.As(err, &failure)
	return failure, found
}

func newClient(t *testing.T, target string, config userprofile.Config) *userprofile.Client {
	t.Helper()
	client, err := userprofile.NewClient(target, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func getUser(t *testing.T, client *userprofile.Client) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err := client.GetUser(ctx, "johndoe")
	return err
}
