package example.userprofile.client;

import com.google.protobuf.FieldMask;
import example.userprofile.v1.BatchGetUsersRequest;
import example.userprofile.v1.BatchGetUsersResponse;
import example.userprofile.v1.GetUserRequest;
import example.userprofile.v1.GetUserResponse;
import example.userprofile.v1.UserProfileServiceGrpc.UserProfileServiceImplBase;
import example.userprofile.v1.UserProfileServiceGrpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerCredentials;
import io.grpc.ServerInterceptor;
import io.grpc.ServerInterceptors;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/** A server on the loopback interface, for what the real one doesn't do. */
final class TestServer implements AutoCloseable {

  /** Handles GetUser. */
  interface Handler {
    void handle(GetUserRequest request, StreamObserver<GetUserResponse> observer);
  }

  /** The headers of each call, retries included. */
  final List<Metadata> calls = new CopyOnWriteArrayList<>();

  /** Whether the health check says that the server serves. */
  final HealthStatusManager health = new HealthStatusManager();

  private final Server server;
  private final InetSocketAddress address;

  TestServer(ServerCredentials credentials, Handler handler) throws IOException {
    this(credentials, handler, TestServer::foundAll, anyPort());
  }

  /** Handles BatchGetUsers. */
  interface BatchHandler {
    void handle(BatchGetUsersRequest request, StreamObserver<BatchGetUsersResponse> observer);
  }

  /** The fields that each call requests. */
  final List<FieldMask> readMasks = new CopyOnWriteArrayList<>();

  static TestServer ofBatches(BatchHandler batches) throws IOException {
    return new TestServer(
        InsecureServerCredentials.create(),
        TestServer::found,
        batches,
        anyPort());
  }

  /** Returns these results for every batch. */
  TestServer(List<BatchGetUsersResponse.Result> results) throws IOException {
    this(
        InsecureServerCredentials.create(),
        TestServer::found,
        (request, observer) -> respond(observer, results),
        anyPort());
  }

  /** Listens on the address of a server that was closed. */
  TestServer(InetSocketAddress address) throws IOException {
    this(InsecureServerCredentials.create(), address);
  }

  /** Listens on the address of a server that was closed. */
  TestServer(ServerCredentials credentials, InetSocketAddress address) throws IOException {
    this(credentials, TestServer::found, TestServer::foundAll, address);
  }

  private TestServer(
      ServerCredentials credentials,
      Handler handler,
      BatchHandler batches,
      InetSocketAddress address)
      throws IOException {
    health.setStatus(UserProfileServiceGrpc.SERVICE_NAME, ServingStatus.SERVING);
    var service =
        new UserProfileServiceImplBase() {
          @Override
          public void getUser(GetUserRequest request, StreamObserver<GetUserResponse> observer) {
            readMasks.add(request.getReadMask());
            handler.handle(request, observer);
          }

          @Override
          public void batchGetUsers(
              BatchGetUsersRequest request, StreamObserver<BatchGetUsersResponse> observer) {
            readMasks.add(request.getReadMask());
            batches.handle(request, observer);
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

  TestServer(Handler handler) throws IOException {
    this(InsecureServerCredentials.create(), handler);
  }

  private static InetSocketAddress anyPort() {
    return new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
  }

  /** Returns a user for every username. */
  static void found(GetUserRequest request, StreamObserver<GetUserResponse> observer) {
    var user = example.userprofile.v1.User.newBuilder().setUsername(request.getUsername());
    observer.onNext(GetUserResponse.newBuilder().setUser(user).build());
    observer.onCompleted();
  }

  /** Returns a user for every username. */
  static void foundAll(
      BatchGetUsersRequest request, StreamObserver<BatchGetUsersResponse> observer) {
    respond(
        observer,
        request.getUsernamesList().stream()
            .map(
                username ->
                    BatchGetUsersResponse.Result.newBuilder()
                        .setUsername(username)
                        .setUser(
                            example.userprofile.v1.User.newBuilder().setUsername(username))
                        .build())
            .toList());
  }

  private static void respond(
      StreamObserver<BatchGetUsersResponse> observer,
      List<BatchGetUsersResponse.Result> results) {
    observer.onNext(BatchGetUsersResponse.newBuilder().addAllResults(results).build());
    observer.onCompleted();
  }

  InetSocketAddress address() {
    return address;
  }

  String target() {
    return "127.0.0.1:" + server.getPort();
  }

  /** Shuts down gracefully: calls in progress finish. */
  void drain() throws InterruptedException {
    server.shutdown();
    server.awaitTermination();
  }

  @Override
  public void close() {
    server.shutdownNow();
  }

  /** Keeps the headers. */
  private final class Recorder implements ServerInterceptor {
    @Override
    public <Q, R> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
      calls.add(headers);
      return next.startCall(call, headers);
    }
  }
}
