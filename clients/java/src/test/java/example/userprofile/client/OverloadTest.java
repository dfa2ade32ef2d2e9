package example.userprofile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static example.userprofile.client.Environment.plaintext;

import com.google.protobuf.Any;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import example.userprofile.v1.ErrorReason;
import example.userprofile.v1.GetUserResponse;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Executors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

/** A server without room for a call, and a request for which no server has room. */
class OverloadTest {

  @Test
  void aRefusedCallIsRetriedAfterThePushback() throws IOException {
    List<Long> attempts = new CopyOnWriteArrayList<>();
    TestServer.Handler handler =
        (request, observer) -> {
          attempts.add(System.nanoTime());
          if (attempts.size() == 1) {
            refuse(observer, "400");
          } else {
            TestServer.found(request, observer);
          }
        };
    try (var server = new TestServer(handler);
        var client = plaintext(server.target()).build()) {
      assertEquals("johndoe", client.getUser("johndoe").username());
    }
    var pause = Duration.ofNanos(attempts.get(1) - attempts.get(0));
    assertTrue(pause.toMillis() >= 400, () -> "retried after " + pause);
  }

  @Test
  void aCallThatTheServerDoesNotWantAgainIsNotRetried() throws IOException {
    try (var server = new TestServer((request, observer) -> refuse(observer, "-1"));
        var client = plaintext(server.target()).build()) {
      var error = assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
      assertEquals(Status.Code.RESOURCE_EXHAUSTED, error.failure().code());
      assertTrue(error.failure().isFor(ErrorReason.ERROR_REASON_OVERLOADED));
      assertTrue(error.failure().retryable());
      assertEquals(1, server.calls.size(), "attempts");
    }
  }

  @Test
  void aSustainedOverloadIsNotMultiplied() throws IOException {
    int calls = 1000;
    var threads = Executors.newFixedThreadPool(20);
    try (var server = new TestServer((request, observer) -> refuse(observer, "1"));
        var client = plaintext(server.target()).timeout(Duration.ofSeconds(30)).build()) {
      Executable call =
          () -> assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
      IntStream.range(0, calls)
          .mapToObj(i -> CompletableFuture.runAsync(() -> runUnchecked(call), threads))
          .toList()
          .forEach(CompletableFuture::join);
      // 500 failures until the throttle ends the retries.
      assertTrue(server.calls.size() <= calls + 600, () -> server.calls.size() + " attempts");
    } finally {
      threads.shutdown();
    }
  }

  @Test
  void aRequestThatIsTooLargeIsNotSent() throws IOException {
    try (var server = new TestServer(TestServer::found);
        var client = plaintext(server.target()).build()) {
      String large = "x".repeat(70_000);
      var failure =
          assertThrows(UserProfileException.class, () -> client.getUser(large)).failure();
      assertTrue(failure.isFor(ErrorReason.ERROR_REASON_INVALID_USERNAME));
      assertFalse(failure.retryable());
      assertThrows(
          IllegalArgumentException.class, () -> RequestOptions.DEFAULT.withFields(large));
      assertTrue(server.calls.isEmpty(), "a call reached the server");

      var results = client.getUsers(List.of(large, "johndoe"));
      assertEquals(failure, results.get(large));
      assertEquals(User.builder("johndoe").build(), results.get("johndoe"));
    }
  }

  private static void runUnchecked(Executable executable) {
    try {
      executable.execute();
    } catch (Throwable error) {
      throw new AssertionError(error);
    }
  }

  private static void refuse(StreamObserver<GetUserResponse> observer, String pushback) {
    var info = ErrorInfo.newBuilder().setDomain("userprofile").setReason("OVERLOADED").build();
    var status =
        com.google.rpc.Status.newBuilder()
            .setCode(Status.Code.RESOURCE_EXHAUSTED.value())
            .addDetails(Any.pack(info))
            .addDetails(Any.pack(RetryInfo.getDefaultInstance()))
            .build();
    var trailers = new Metadata();
    trailers.put(
        Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER), pushback);
    observer.onError(StatusProto.toStatusRuntimeException(status, trailers));
  }
}
