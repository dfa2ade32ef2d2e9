package example.userprofile.client;

import static example.userprofile.client.Environment.plaintext;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import example.userprofile.v1.UserProfileServiceGrpc;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.Test;

/** Health, connections, and how clients and calls end. */
class LifecycleTest {

  @Test
  void healthIsWhatTheServerSays() throws Exception {
    try (var server = new TestServer(TestServer::found);
        var client = plaintext(server.target()).healthChecking().build()) {
      assertTrue(client.checkHealth());
      server.health.setStatus(UserProfileServiceGrpc.SERVICE_NAME, ServingStatus.NOT_SERVING);
      assertFalse(client.checkHealth());
      server.drain();
      var error = assertThrows(UserProfileException.class, client::checkHealth);
      assertEquals(Optional.of(Failure.UNREACHABLE), error.failure().reason());
    }
  }

  @Test
  void callsTakeTurnsOnSeveralConnections() throws IOException {
    try (var listener = new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
        var client =
            plaintext("127.0.0.1:" + listener.getLocalPort())
                .connections(3)
                .timeout(Duration.ofMillis(100))
                .build()) {
      listener.setSoTimeout(30_000);
      for (int i = 0; i < 3; i++) {
        assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
        listener.accept(); // left open and silent, so that nobody connects again
      }
    }
  }

  @Test
  void connectionsAndRetriesAreLimited() {
    var builder = plaintext("localhost:1");
    for (int number : new int[] {0, 65}) {
      assertThrows(IllegalArgumentException.class, () -> builder.connections(number));
    }
    for (int number : new int[] {-1, 5}) {
      assertThrows(IllegalArgumentException.class, () -> builder.retries(number));
    }
  }

  @Test
  void closingEndsCallsAndWaitsForTheConnections() throws Exception {
    var received = new CountDownLatch(1);
    TestServer.Handler never = (request, observer) -> received.countDown();
    try (var server = new TestServer(never)) {
      var client = plaintext(server.target()).build();
      var call = CompletableFuture.supplyAsync(() -> client.getUser("johndoe"));
      received.await();
      client.close();

      var error = assertThrows(CompletionException.class, call::join);
      var failure = assertInstanceOf(UserProfileException.class, error.getCause()).failure();
      assertEquals(Status.Code.CANCELLED, failure.code());
      assertEquals("The client was closed.", failure.message());
      assertFalse(failure.retryable());
      assertThrows(IllegalStateException.class, () -> client.getUser("johndoe"));
      assertThrows(IllegalStateException.class, () -> client.getUsers(List.of("johndoe")));
      assertThrows(IllegalStateException.class, client::checkHealth);
    }
  }

  @Test
  void closingEndsHealthChecks() throws Exception {
    try (var silent = new ServerSocket(0, 50, InetAddress.getLoopbackAddress())) {
      var client = plaintext("127.0.0.1:" + silent.getLocalPort()).build();
      var check = CompletableFuture.supplyAsync(client::checkHealth);
      try (var connection = silent.accept()) {
        client.close();

        var error = assertThrows(CompletionException.class, check::join);
        var failure = assertInstanceOf(UserProfileException.class, error.getCause()).failure();
        assertEquals("The client was closed.", failure.message(), connection::toString);
      }
    }
  }

  @Test
  void aCallThatItsCallerCancelsIsNotRefused() throws Exception {
    var received = new CountDownLatch(2);
    TestServer.Handler never = (request, observer) -> received.countDown();
    try (var server = new TestServer(never);
        var client = plaintext(server.target()).build();
        var context = Context.current().withCancellation()) {
      var byContext =
          CompletableFuture.supplyAsync(
              () -> {
                try {
                  return context.call(() -> client.getUser("johndoe"));
                } catch (Exception error) {
                  throw new CompletionException(error);
                }
              });
      var byInterrupt = new CompletableFuture<User>();
      var thread =
          new Thread(
              () -> {
                try {
                  byInterrupt.complete(client.getUser("johndoe"));
                } catch (UserProfileException error) {
                  assertTrue(Thread.currentThread().isInterrupted());
                  byInterrupt.completeExceptionally(error);
                }
              });
      thread.start();
      received.await();
      thread.interrupt();
      context.cancel(null);
      for (var call : List.of(byContext, byInterrupt)) {
        var error = assertThrows(CompletionException.class, call::join);
        var failure = assertInstanceOf(UserProfileException.class, error.getCause()).failure();
        assertEquals(Status.Code.CANCELLED, failure.code());
        assertEquals(Optional.empty(), failure.reason());
        assertFalse(failure.retryable());
      }
    }
  }
}
