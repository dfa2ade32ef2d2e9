package example.userprofile.client;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

import java.time.Duration;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.Stream;

/** The client's connections, which take turns. */
final class Connections {

  /** For closing sockets; all calls are cancelled before. */
  private static final Duration CLOSING = Duration.ofSeconds(5);

  private final List<Connection> all;

  /** Those that are opened for one call. */
  private final Set<Connection> further = ConcurrentHashMap.newKeySet();

  private final AtomicInteger turn = new AtomicInteger();
  private volatile boolean closed;

  Connections(List<Connection> all) {
    this.all = List.copyOf(all);
  }

  /** Throws IllegalStateException if they are closed. */
  void checkOpen() {
    if (closed) {
      throw new IllegalStateException("the client is closed");
    }
  }

  /** Returns the next one. */
  Connection next() {
    checkOpen();
    return all.get(Math.floorMod(turn.getAndIncrement(), all.size()));
  }

  boolean isClosed() {
    return closed;
  }

  /** Makes a call over a connection of its own. */
  <T> T alone(Supplier<Connection> opener, Function<Connection, T> call) {
    checkOpen();
    Connection connection = opener.get();
    further.add(connection);
    try {
      checkOpen(); // close() has not seen this one if it came in between
      return call.apply(connection);
    } finally {
      close(List.of(connection));
      further.remove(connection);
    }
  }

  /** Cancels the calls in progress and waits until the connections are closed. */
  void close() {
    closed = true;
    close(Stream.concat(all.stream(), further.stream()).toList());
  }

  private static void close(List<Connection> connections) {
    connections.forEach(connection -> connection.channel().shutdownNow());
    long end = System.nanoTime() + CLOSING.toNanos();
    try {
      for (Connection connection : connections) {
        connection.channel().awaitTermination(end - System.nanoTime(), NANOSECONDS);
      }
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
