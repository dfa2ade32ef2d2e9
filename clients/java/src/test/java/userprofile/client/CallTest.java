package userprofile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static userprofile.client.Environment.plaintext;

import io.grpc.Metadata;
import io.grpc.NameResolverRegistry;
import io.grpc.Status;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;
import userprofile.v1.UserProfile.GetUserResponse;

/** Deadlines, retries, load balancing and input that can't be sent. */
class CallTest {

  @Test
  void unavailableIsRetriedUntilItSucceeds() throws IOException {
    var failuresLeft = new AtomicInteger(3);
    TestServer.Answer answer =
        (request, observer) -> {
          if (failuresLeft.getAndDecrement() > 0) {
            fail(observer, Status.UNAVAILABLE, Optional.empty());
          } else {
            TestServer.found(request, observer);
          }
        };
    try (var server = new TestServer(answer);
        var client = connect(server)) {
      assertEquals("johndoe", client.getUser("johndoe").username());
      assertEquals(4, server.calls.size(), "attempts");
    }
  }

  @Test
  void thereAreFourAttemptsAtMost() throws IOException {
    assertEquals(4, attempts(Status.UNAVAILABLE, Optional.empty()));
  }

  @Test
  void theServerCanAskForAnotherAttempt() throws IOException {
    assertEquals(4, attempts(Status.UNAVAILABLE, Optional.of("1")));
  }

  @Test
  void theServerCanAskForNoMoreAttempts() throws IOException {
    assertEquals(1, attempts(Status.UNAVAILABLE, Optional.of("-1")));
  }

  @ParameterizedTest
  @EnumSource(
      mode = EnumSource.Mode.EXCLUDE,
      names = {"OK", "UNAVAILABLE"})
  void nothingElseIsRetried(Status.Code code) throws IOException {
    assertEquals(1, attempts(code.toStatus(), Optional.empty()));
  }

  @Test
  void aCallEndsAtItsDeadline() throws IOException {
    TestServer.Answer never = (request, observer) -> {};
    try (var server = new TestServer(never);
        var client = plaintext(server.target()).timeout(Duration.ofMillis(200)).build()) {
      var error = assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
      assertEquals(Status.Code.DEADLINE_EXCEEDED, error.failure().code());
    }
  }

  @Test
  void callsAreSpreadOverAllAddresses() throws IOException {
    try (var one = new TestServer(TestServer::found);
        var two = new TestServer(TestServer::found)) {
      var addresses = new FixedAddresses(List.of(one.address(), two.address()));
      NameResolverRegistry.getDefaultRegistry().register(addresses);
      try (var client = plaintext("fixed:///both").build()) {
        // As many as it takes until both are connected; the method's timeout is the bound.
        while (one.calls.isEmpty() || two.calls.isEmpty()) {
          client.getUser("johndoe");
        }
      } finally {
        NameResolverRegistry.getDefaultRegistry().deregister(addresses);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"\ud83e", "\udd8a", "\udd8a\ud83e"})
  void halfASurrogatePairIsNoName(String username) throws IOException {
    try (var server = new TestServer(TestServer::found);
        var client = connect(server)) {
      assertThrows(IllegalArgumentException.class, () -> client.getUser(username));
      assertThrows(
          IllegalArgumentException.class, () -> client.batchGetUsers(List.of("a", username)));
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
