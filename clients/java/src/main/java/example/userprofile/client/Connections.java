package example.userprofile.client;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

import java.time.Duration;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/** The client's connections, which take turns. */
final class Connections {

  /** For closing sockets; all calls are cancelled before. */
  private static final Duration CLOSING = Duration.ofSeconds(5);

  private final List<Connection> all;
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

  /** Cancels the calls in progress and waits until the connections are closed. */
  void close() {
    closed = true;
    all.forEach(connection -> connection.channel().shutdownNow());
    long end = System.nanoTime() + CLOSING.toNanos();
    try {
      for (Connection connection : all) {
        connection.channel().awaitTermination(end - System.nanoTime(), NANOSECONDS);
      }
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }
}
