package example.userprofile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static example.userprofile.client.Environment.plaintext;

import example.userprofile.v1.GetUserResponse;
import example.userprofile.v1.UserProfileServiceGrpc;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.NameResolverRegistry;
import io.grpc.Status;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Deadlines, retries, load balancing and input that can't be sent. */
class CallTest {

  @Test
  void unavailableIsRetriedUntilItSucceeds() throws IOException {
    var failuresLeft = new AtomicInteger(4);
    TestServer.Handler handler =
        (request, observer) -> {
          if (failuresLeft.getAndDecrement() > 0) {
            fail(observer, Status.UNAVAILABLE, Optional.empty());
          } else {
            TestServer.found(request, observer);
          }
        };
    try (var server = new TestServer(handler);
        var client = connect(server)) {
      assertEquals("johndoe", client.getUser("johndoe").username());
      assertEquals(5, server.calls.size(), "attempts");
    }
  }

  @Test
  void thereAreFiveAttemptsAtMost() throws IOException {
    assertEquals(5, attempts(Status.UNAVAILABLE, Optional.empty()));
  }

  @Test
  void pushbackAllowsARetry() throws IOException {
    assertEquals(5, attempts(Status.UNAVAILABLE, Optional.of("1")));
  }

  @Test
  void negativePushbackStopsRetries() throws IOException {
    assertEquals(1, attempts(Status.UNAVAILABLE, Optional.of("-1")));
  }

  @Test
  void retriesMakeUpForALostServerButNotForAnOutage() throws IOException {
    var failing = new AtomicInteger(100);
    TestServer.Handler handler =
        (request, observer) -> {
          if (failing.getAndDecrement() > 0) {
            fail(observer, Status.UNAVAILABLE, Optional.empty());
          } else {
            TestServer.found(request, observer);
          }
        };
    try (var server = new TestServer(handler);
        var client = connect(server)) {
      assertEquals(200, succeeding(client, 200));

      failing.set(1_000_000);
      assertEquals(0, succeeding(client, 400));
      int before = server.calls.size();
      assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
      assertEquals(1, server.calls.size() - before, "attempts");
    }
  }

  private static long succeeding(UserProfileClient client, int calls) {
    var threads = Executors.newFixedThreadPool(50);
    try {
      return IntStream.range(0, calls)
          .mapToObj(i -> CompletableFuture.supplyAsync(() -> client.getUser("johndoe"), threads))
          .toList()
          .stream()
          .filter(it -> it.handle((user, error) -> error == null).join())
          .count();
    } finally {
      threads.shutdown();
    }
  }

  @Test
  void aLargeResponseIsRead() throws IOException {
    String name = "x".repeat(32 * 1024 * 1024);
    TestServer.Handler large =
        (request, observer) -> {
          var user =
              example.userprofile.v1.User.newBuilder().setUsername("johndoe").setFullName(name);
          observer.onNext(GetUserResponse.newBuilder().setUser(user).build());
          observer.onCompleted();
        };
    try (var server = new TestServer(large);
        var client = connect(server)) {
      assertEquals(Optional.of(name), client.getUser("johndoe").fullName());
    }
  }

  @ParameterizedTest
  @EnumSource(
      mode = EnumSource.Mode.EXCLUDE,
      names = {"OK", "UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"})
  void nothingElseIsRetried(Status.Code code) throws IOException {
    assertEquals(1, attempts(code.toStatus(), Optional.empty()));
  }

  @Test
  void aCallEndsAtItsDeadline() throws IOException {
    TestServer.Handler never = (request, observer) -> {};
    try (var server = new TestServer(never);
        var client = plaintext(server.target()).timeout(Duration.ofMillis(200)).build()) {
      var error = assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
      assertEquals(Status.Code.DEADLINE_EXCEEDED, error.failure().code());
    }
  }

  @Test
  void anEarlierDeadlineOfTheContextIsThatOfTheCall() throws Exception {
    TestServer.Handler never = (request, observer) -> {};
    var timers = Executors.newSingleThreadScheduledExecutor();
    try (var server = new TestServer(never);
        var client = connect(server)) {
      for (int millis : new int[] {-200, 200}) {
        try (var context =
            Context.current().withDeadlineAfter(millis, TimeUnit.MILLISECONDS, timers)) {
          Executable call = () -> context.call(() -> client.getUser("johndoe"));
          var failure = assertThrows(UserProfileException.class, call).failure();
          assertEquals(Status.Code.DEADLINE_EXCEEDED, failure.code());
          assertTrue(failure.message().matches(".* within 0\\.[0-2].*"), failure::message);
        }
      }
    } finally {
      timers.shutdownNow();
    }
  }

  @Test
  void healthCheckingSkipsServersThatAreNotServing() throws IOException {
    try (var one = new TestServer(TestServer::found);
        var two = new TestServer(TestServer::found);
        var three = new TestServer(TestServer::found)) {
      three.health.setStatus(UserProfileServiceGrpc.SERVICE_NAME, ServingStatus.NOT_SERVING);
      var addresses =
          new FixedAddresses(List.of(one.address(), two.address(), three.address()));
      NameResolverRegistry.getDefaultRegistry().register(addresses);
      try (var client = plaintext("fixed:///all").healthChecking().build()) {
        // As many as it takes until both are connected; the method's timeout is the bound.
        while (one.calls.isEmpty() || two.calls.isEmpty()) {
          client.getUser("johndoe");
        }
        assertTrue(three.calls.isEmpty(), "a server was called that doesn't serve");
      } finally {
        NameResolverRegistry.getDefaultRegistry().deregister(addresses);
      }
    }
  }

  @Test
  void eachClientHasAConnectionOfItsOwn() throws IOException {
    try (var listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
      listener.setSoTimeout(30_000);
      String target = "127.0.0.1:" + listener.getLocalPort();
      try (var one = plaintext(target).timeout(Duration.ofMillis(100)).build();
          var two = plaintext(target).timeout(Duration.ofMillis(100)).build()) {
        for (var client : List.of(one, two)) {
          assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
          listener.accept(); // left open and silent, so that nobody connects again
        }
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"\ud83e", "\udd8a", "\udd8a\ud83e"})
  void halfASurrogatePairIsNoName(String username) throws IOException {
    try (var server = new TestServer(TestServer::found);
        var client = connect(server)) {
      assertInvalid(() -> client.getUser(username));
      assertTrue(server.calls.isEmpty(), "the call reached the server");
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"", " ", "local host", "http://localhost:50051"})
  void aTargetThatMeansNothingIsRefused(String target) {
    assertThrows(IllegalArgumentException.class, () -> plaintext(target).build());
  }

  @ParameterizedTest
  @ValueSource(longs = {0, -1})
  void aTimeoutIsMoreThanZero(long millis) {
    var builder = plaintext("localhost");
    assertThrows(IllegalArgumentException.class, () -> builder.timeout(Duration.ofMillis(millis)));
  }

  private static void assertInvalid(Executable call) {
    var failure = assertThrows(UserProfileException.class, call).failure();
    assertEquals(Status.Code.INVALID_ARGUMENT, failure.code());
    assertEquals(Optional.of("INVALID_USERNAME"), failure.reason());
    assertEquals(
        List.of(new Failure.Violation("username", "must be valid Unicode")), failure.violations());
  }

  private static int attempts(Status status, Optional<String> pushback) throws IOException {
    try (var server = new TestServer((request, observer) -> fail(observer, status, pushback));
        var client = connect(server)) {
      var error = assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
      assertEquals(status.getCode(), error.failure().code());
      return server.calls.size();
    }
  }

  private static void fail(
      StreamObserver<GetUserResponse> observer, Status status, Optional<String> pushback) {
    var trailers = new Metadata();
    var key = Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);
    pushback.ifPresent(it -> trailers.put(key, it));
    observer.onError(status.asRuntimeException(trailers));
  }

  private static UserProfileClient connect(TestServer server) {
    return plaintext(server.target()).build();
  }
}
