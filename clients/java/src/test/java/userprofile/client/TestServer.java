package userprofile.client;

import io.grpc.ForwardingServerCall.SimpleForwardingServerCall;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerCredentials;
import io.grpc.ServerInterceptor;
import io.grpc.ServerInterceptors;
import io.grpc.Status;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import userprofile.v1.UserProfile;
import userprofile.v1.UserProfile.BatchGetUsersRequest;
import userprofile.v1.UserProfile.BatchGetUsersResponse;
import userprofile.v1.UserProfile.GetUserRequest;
import userprofile.v1.UserProfile.GetUserResponse;
import userprofile.v1.UserProfile.UserResult;
import userprofile.v1.UserProfileServiceGrpc;
import userprofile.v1.UserProfileServiceGrpc.UserProfileServiceImplBase;

/** A server on the loopback interface, for what the real one doesn't do. */
final class TestServer implements AutoCloseable {

  /** How GetUser answers. */
  interface Answer {
    void to(GetUserRequest request, StreamObserver<GetUserResponse> answer);
  }

  private static final Metadata.Key<String> REQUEST_ID =
      Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER);

  /** The headers of each call, retries included. */
  final List<Metadata> calls = new CopyOnWriteArrayList<>();

  /** Whether the health check says that the server serves. */
  final HealthStatusManager health = new HealthStatusManager();

  private final Server server;
  private final InetSocketAddress address;

  TestServer(ServerCredentials credentials, Answer answer) throws IOException {
    this(credentials, answer, List.of());
  }

  /** Answers to every batch with these results, whatever is asked for. */
  TestServer(List<UserResult> results) throws IOException {
    this(InsecureServerCredentials.create(), TestServer::found, results);
  }

  /** Listens again where a server has listened that is closed. */
  TestServer(InetSocketAddress address) throws IOException {
    this(InsecureServerCredentials.create(), TestServer::found, List.of(), address);
  }

  private TestServer(ServerCredentials credentials, Answer answer, List<UserResult> results)
      throws IOException {
    this(credentials, answer, results, new InetSocketAddress("127.0.0.1", 0));
  }

  private TestServer(
      ServerCredentials credentials,
      Answer answer,
      List<UserResult> results,
      InetSocketAddress address)
      throws IOException {
    health.setStatus(UserProfileServiceGrpc.SERVICE_NAME, ServingStatus.SERVING);
    var service =
        new UserProfileServiceImplBase() {
          @Override
          public void getUser(GetUserRequest request, StreamObserver<GetUserResponse> observer) {
            answer.to(request, observer);
          }

          @Override
          public void batchGetUsers(
              BatchGetUsersRequest request, StreamObserver<BatchGetUsersResponse> observer) {
            observer.onNext(BatchGetUsersResponse.newBuilder().addAllResults(results).build());
            observer.onCompleted();
          }
        };
    server =
        NettyServerBuilder.forAddress(address, credentials)
            .addService(ServerInterceptors.intercept(service, new Recorder()))
            .addService(health.getHealthService())
            .build()
            .start();
    this.address = (InetSocketAddress) server.getListenSockets().get(0);
  }

  TestServer(Answer answer) throws IOException {
    this(InsecureServerCredentials.create(), answer);
  }

  /** Finds everyone. */
  static void found(GetUserRequest request, StreamObserver<GetUserResponse> answer) {
    var user = UserProfile.User.newBuilder().setUsername(request.getUsername());
    answer.onNext(GetUserResponse.newBuilder().setUser(user).build());
    answer.onCompleted();
  }

  InetSocketAddress address() {
    return address;
  }

  String target() {
    return "127.0.0.1:" + server.getPort();
  }

  /** Ends as an orderly server does: what has begun is answered. */
  void drain() throws InterruptedException {
    server.shutdown();
    server.awaitTermination();
  }

  @Override
  public void close() {
    server.shutdownNow();
  }

  /** Keeps the headers, and gives each call a request id, as the real server does. */
  private final class Recorder implements ServerInterceptor {
    @Override
    public <Q, R> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
      calls.add(headers);
      return next.startCall(
          new SimpleForwardingServerCall<>(call) {
            @Override
            public void close(Status status, Metadata trailers) {
              trailers.put(REQUEST_ID, "the request id");
              super.close(status, trailers);
            }
          },
          headers);
    }
  }
}
