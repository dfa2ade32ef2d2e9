package userprofile.client;

import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerCredentials;
import io.grpc.ServerInterceptor;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import userprofile.v1.UserProfile;
import userprofile.v1.UserProfile.GetUserRequest;
import userprofile.v1.UserProfile.GetUserResponse;
import userprofile.v1.UserProfileServiceGrpc.UserProfileServiceImplBase;

/** A server on the loopback interface, for what the real one doesn't do. */
final class TestServer implements AutoCloseable {

  /** How GetUser answers. */
  interface Answer {
    void to(GetUserRequest request, StreamObserver<GetUserResponse> answer);
  }

  /** The headers of each call, retries included. */
  final List<Metadata> calls = new CopyOnWriteArrayList<>();

  private final Server server;

  TestServer(ServerCredentials credentials, Answer answer) throws IOException {
    var service =
        new UserProfileServiceImplBase() {
          @Override
          public void getUser(GetUserRequest request, StreamObserver<GetUserResponse> observer) {
            answer.to(request, observer);
          }
        };
    server =
        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0), credentials)
            .addService(service)
            .intercept(new Recorder())
            .build()
            .start();
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
    return (InetSocketAddress) server.getListenSockets().get(0);
  }

  String target() {
    return "127.0.0.1:" + server.getPort();
  }

  @Override
  public void close() {
    server.shutdownNow();
  }

  private final class Recorder implements ServerInterceptor {
    @Override
    public <Q, R> ServerCall.Listener<Q> interceptCall(
        ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
      calls.add(headers);
      return next.startCall(call, headers);
    }
  }
}
