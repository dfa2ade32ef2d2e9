package example.userprofile.client;

import static example.userprofile.client.Environment.plaintext;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.ServerInterceptors;
import io.grpc.Status;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What a call is sent with: by the client, by the request, and by the call that is served. */
class OptionsTest {

  private static final Metadata.Key<String> TENANT = key("tenant");
  private static final Metadata.Key<String> PARENT = key("traceparent");
  private static final Metadata.Key<String> STATE = key("tracestate");
  private static final Metadata.Key<String> AUTHORIZATION = key("authorization");

  @Test
  void everyCallHasAnIdThatItsErrorsHaveToo() throws IOException {
    TestServer.Handler failing =
        (request, observer) -> observer.onError(Status.INTERNAL.asRuntimeException());
    try (var server = new TestServer(failing);
        var client = plaintext(server.target()).build()) {
      var ids = new ArrayList<Optional<String>>();
      for (int i = 0; i < 2; i++) {
        var error = assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
        ids.add(error.failure().requestId());
        assertEquals(ids.get(i), Optional.ofNullable(server.calls.get(i).get(Calls.REQUEST_ID)));
      }
      assertNotEquals(ids.get(0), ids.get(1));
    }
  }

  @Test
  void aRequestHasItsOwnIdMetadataAndTimeout() throws IOException {
    TestServer.Handler never = (request, observer) -> {};
    try (var server = new TestServer(never);
        var client = plaintext(server.target()).metadata(of(TENANT, "the client's")).build()) {
      var options =
          RequestOptions.DEFAULT
              .withRequestId("mine")
              .withMetadata(of(TENANT, "the request's"))
              .withTimeout(Duration.ofMillis(200));
      var error =
          assertThrows(UserProfileException.class, () -> client.getUser("johndoe", options));
      assertEquals(Status.Code.DEADLINE_EXCEEDED, error.failure().code());
      assertTrue(error.failure().message().contains("within 0.2 s"), error::getMessage);
      Metadata sent = server.calls.get(0);
      assertEquals("mine", sent.get(Calls.REQUEST_ID));
      assertEquals(List.of("the client's", "the request's"), all(sent, TENANT));
    }
  }

  @Test
  void aRequestMayNotWaitForAServer() throws IOException {
    String target;
    try (var server = new TestServer(TestServer::found)) {
      target = server.target();
    }
    var options = RequestOptions.DEFAULT.withWaitForReady(false);
    try (var client = plaintext(target).build()) {
      var error =
          assertThrows(UserProfileException.class, () -> client.getUser("johndoe", options));
      assertEquals(Optional.of(Failure.UNREACHABLE), error.failure().reason());
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"authorization", "x-request-id", "grpc-timeout"})
  void someMetadataIsNotTheCallers(String name) {
    var metadata = of(key(name), "value");
    assertThrows(
        IllegalArgumentException.class, () -> RequestOptions.DEFAULT.withMetadata(metadata));
    var builder = plaintext("localhost:1");
    assertThrows(IllegalArgumentException.class, () -> builder.metadata(metadata));
  }

  @ParameterizedTest
  @ValueSource(strings = {"", "two words", "a\nb", "ä"}) // the server would make one of its own
  void anIdIsVisibleAscii(String id) {
    assertThrows(
        IllegalArgumentException.class, () -> RequestOptions.DEFAULT.withRequestId(id));
  }

  @Test
  void theSupplierOfTokensIsAskedForEachCall() throws IOException {
    var number = new AtomicInteger();
    try (var server = new TestServer(TestServer::found);
        var client =
            plaintext(server.target()).token(() -> "token" + number.getAndIncrement()).build()) {
      client.getUser("johndoe");
      client.getUsers(List.of("johndoe"));
      assertEquals("Bearer token0", server.calls.get(0).get(AUTHORIZATION));
      assertEquals("Bearer token1", server.calls.get(1).get(AUTHORIZATION));
    }
  }

  @Test
  void aSupplierThatFailsFailsTheCall() throws IOException {
    try (var server = new TestServer(TestServer::found);
        var client = plaintext(server.target()).token(OptionsTest::noToken).build()) {
      var error = assertThrows(IllegalStateException.class, () -> client.getUser("johndoe"));
      assertEquals("no token", error.getMessage());
      assertTrue(server.calls.isEmpty(), "the call reached the server");
    }
  }

  @Test
  @SuppressWarnings("NullAway") // callers may not have it
  void nullIsNoTokenAndNoInterceptor() throws IOException {
    var builder = plaintext("localhost:1");
    assertThrows(NullPointerException.class, () -> builder.token((Supplier<String>) null));
    assertThrows(NullPointerException.class, () -> builder.intercept((ClientInterceptor) null));
    try (var server = new TestServer(TestServer::found);
        var client = plaintext(server.target()).token(() -> null).build()) {
      var error = assertThrows(NullPointerException.class, () -> client.getUser("johndoe"));
      assertEquals("the supplier's token is null", error.getMessage());
      assertTrue(server.calls.isEmpty(), "the call reached the server");
    }
  }

  private static String noToken() {
    throw new IllegalStateException("no token");
  }

  @Test
  void interceptorsSeeEachCallOnceAndNoToken() throws IOException {
    var failuresLeft = new AtomicInteger(2);
    TestServer.Handler handler =
        (request, observer) -> {
          if (failuresLeft.getAndDecrement() > 0) {
            observer.onError(Status.UNAVAILABLE.asRuntimeException());
          } else {
            TestServer.found(request, observer);
          }
        };
    var seen = new ArrayList<Metadata>();
    try (var server = new TestServer(handler);
        var client =
            plaintext(server.target()).token("abc").intercept(new Recorder(seen)).build()) {
      client.getUser("johndoe");
      assertEquals(3, server.calls.size(), "attempts");
      assertEquals("Bearer abc", server.calls.get(2).get(AUTHORIZATION));
      assertEquals(1, seen.size(), "calls that the interceptor saw");
      assertTrue(seen.get(0).containsKey(Calls.REQUEST_ID));
      assertFalse(seen.get(0).containsKey(AUTHORIZATION));
    }
  }

  @Test
  void theChannelCanBeConfigured() throws IOException {
    try (var server = new TestServer(TestServer::found);
        var client =
            plaintext("nobody.invalid:1")
                .configureChannel(it -> it.overrideAuthority("another.example"))
                .configureChannel(it -> it.proxyDetector(address -> null))
                .retries(0)
                .waitForReady(false)
                .build()) {
      assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
      assertTrue(server.calls.isEmpty());
    }
  }

  @Test
  void withoutRetriesThereIsOneAttempt() throws IOException {
    TestServer.Handler failing =
        (request, observer) -> observer.onError(Status.UNAVAILABLE.asRuntimeException());
    for (int retries : new int[] {0, 1}) {
      try (var server = new TestServer(failing);
          var client = plaintext(server.target()).retries(retries).build()) {
        assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
        assertEquals(retries + 1, server.calls.size(), "attempts");
      }
    }
  }

  @Test
  void theIdAndTheTraceOfTheCallThatIsServedArePassedOn() throws Exception {
    try (var userprofile = new TestServer(TestServer::found);
        var client = plaintext(userprofile.target()).build()) {
      var gateway = new Passing(client);
      var server =
          NettyServerBuilder.forAddress(
                  new InetSocketAddress(InetAddress.getLoopbackAddress(), 0),
                  InsecureServerCredentials.create())
              .addService(ServerInterceptors.intercept(gateway, new ContextPropagation()))
              .build()
              .start();
      try (var caller = plaintext("127.0.0.1:" + server.getPort()).build()) {
        var trace = of(PARENT, "00-1-2-01");
        trace.put(STATE, "a=1");
        trace.put(STATE, "b=2");
        caller.getUser(
            "johndoe", RequestOptions.DEFAULT.withRequestId("id").withMetadata(trace));
        caller.getUser("johndoe");
      } finally {
        server.shutdownNow();
      }
      Metadata sent = userprofile.calls.get(0);
      assertEquals("id", sent.get(Calls.REQUEST_ID));
      assertEquals(List.of("00-1-2-01"), all(sent, PARENT));
      assertEquals(List.of("a=1,b=2"), all(sent, STATE));
      assertNull(userprofile.calls.get(1).get(PARENT));
    }
  }

  /** Passes each call on to a client. */
  private static final class Passing
      extends example.userprofile.v1.UserProfileServiceGrpc.UserProfileServiceImplBase {

    private final UserProfileClient client;

    Passing(UserProfileClient client) {
      this.client = client;
    }

    @Override
    public void getUser(
        example.userprofile.v1.GetUserRequest request,
        StreamObserver<example.userprofile.v1.GetUserResponse> observer) {
      assertEquals("johndoe", client.getUser(request.getUsername()).username());
      TestServer.found(request, observer);
    }
  }

  private record Recorder(List<Metadata> seen) implements ClientInterceptor {
    @Override
    public <Q, R> ClientCall<Q, R> interceptCall(
        MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
      return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
        @Override
        public void start(Listener<R> listener, Metadata headers) {
          seen.add(headers);
          super.start(listener, headers);
        }
      };
    }
  }

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }

  private static Metadata of(Metadata.Key<String> key, String value) {
    var metadata = new Metadata();
    metadata.put(key, value);
    return metadata;
  }

  private static List<String> all(Metadata metadata, Metadata.Key<String> key) {
    var values = new ArrayList<String>();
    Optional.ofNullable(metadata.getAll(key)).ifPresent(all -> all.forEach(values::add));
    return values;
  }
}
