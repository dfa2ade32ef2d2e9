package example.userprofile.client;

import static example.userprofile.client.Environment.plaintext;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** Any number of usernames, in batches of a hundred of which four are in flight. */
class ManyUsersTest {

  private static final List<String> NAMES =
      IntStream.range(0, 1050).mapToObj(i -> "user" + i).toList();

  @Test
  void anyNumberIsReadInOrderAndOnce() throws IOException {
    List<Integer> sizes = new CopyOnWriteArrayList<>();
    TestServer.BatchHandler handler =
        (request, observer) -> {
          sizes.add(request.getUsernamesCount());
          TestServer.foundAll(request, observer);
        };
    try (var server = TestServer.ofBatches(handler);
        var client = plaintext(server.target()).build()) {
      var twice = Stream.of(NAMES, NAMES).flatMap(List::stream).toList();
      assertEquals(NAMES, List.copyOf(client.getUsers(twice).keySet()));
      assertEquals(1050, sizes.stream().mapToInt(it -> it).sum());
      assertEquals(11, sizes.size());
      assertTrue(sizes.stream().allMatch(it -> it <= 100), sizes::toString);

      assertEquals(Map.of(), client.getUsers(List.of()));
      assertEquals(11, sizes.size(), "calls");
    }
  }

  @Test
  void fourBatchesAreInFlight() throws IOException {
    var inFlight = new AtomicInteger();
    var most = new AtomicInteger();
    var four = new CountDownLatch(4);
    TestServer.BatchHandler handler =
        (request, observer) -> {
          most.accumulateAndGet(inFlight.incrementAndGet(), Math::max);
          four.countDown();
          try {
            four.await(); // which only calls at the same time pass
          } catch (InterruptedException error) {
            throw new IllegalStateException(error);
          }
          inFlight.decrementAndGet();
          TestServer.foundAll(request, observer);
        };
    try (var server = TestServer.ofBatches(handler);
        var client = plaintext(server.target()).build()) {
      assertEquals(1050, client.getUsers(NAMES).size());
      assertEquals(4, most.get());
    }
  }

  @Test
  void aCallThatFailsAsAWholeFailsAllOrItsOwnUsernames() throws IOException {
    TestServer.BatchHandler handler =
        (request, observer) -> {
          if (request.getUsernamesList().contains("user250")) {
            observer.onError(Status.INTERNAL.asRuntimeException());
          } else {
            TestServer.foundAll(request, observer);
          }
        };
    try (var server = TestServer.ofBatches(handler);
        var client = plaintext(server.target()).build()) {
      var error = assertThrows(UserProfileException.class, () -> client.getUsers(NAMES));
      assertEquals(Status.Code.INTERNAL, error.failure().code());
      assertTrue(server.calls.size() <= 6, () -> server.calls.size() + " calls");

      try (var results = client.streamUsers(NAMES.stream())) {
        var seen = new ArrayList<String>();
        results.forEach(
            it -> {
              boolean failed = NAMES.subList(200, 300).contains(it.getKey());
              assertEquals(failed, it.getValue() instanceof Failure, it.getKey());
              seen.add(it.getKey());
            });
        assertEquals(NAMES, seen);
      }
    }
  }

  @Test
  void aStreamTakesUsernamesAsItIsConsumed() throws IOException {
    var taken = new AtomicInteger();
    var endless = Stream.generate(() -> "user" + taken.getAndIncrement());
    try (var server = new TestServer(TestServer::found);
        var client = plaintext(server.target()).build();
        var results = client.streamUsers(endless)) {
      assertEquals("user249", results.skip(249).findFirst().orElseThrow().getKey());
      assertTrue(taken.get() <= 600, () -> taken + " usernames taken");
    }
  }

  @Test
  void aParallelStreamTakesNoMore() throws IOException {
    var taken = new AtomicInteger();
    var endless = Stream.generate(() -> "user" + taken.getAndIncrement());
    try (var server = new TestServer(TestServer::found);
        var client = plaintext(server.target()).build();
        var results = client.streamUsers(endless).parallel()) {
      assertEquals("user0", results.findFirst().orElseThrow().getKey());
      assertTrue(taken.get() <= 600, () -> taken + " usernames taken");
    }
  }
}
