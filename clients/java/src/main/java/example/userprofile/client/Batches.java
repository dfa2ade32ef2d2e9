package example.userprofile.client;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.Iterator;
import java.util.List;
import java.util.Spliterator;
import java.util.function.Consumer;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/** Splits any number of usernames into batches, with the calls of a few in flight. */
final class Batches implements Spliterator<Batch>, AutoCloseable {

  /** How many usernames the server accepts in one call. */
  private static final int SIZE = 100;

  /** Enough to keep a server busy while responses are on the network. */
  private static final int IN_FLIGHT = 4;

  private final Iterator<String> usernames;
  private final Function<List<String>, Batch> start;
  private final Deque<Batch> inFlight = new ArrayDeque<>();

  Batches(Iterator<String> usernames, Function<List<String>, Batch> start) {
    this.usernames = usernames;
    this.start = start;
  }

  @Override
  public boolean tryAdvance(Consumer<? super Batch> action) {
    while (inFlight.size() < IN_FLIGHT && usernames.hasNext()) {
      var batch = new ArrayList<String>();
      while (batch.size() < SIZE && usernames.hasNext()) {
        batch.add(usernames.next());
      }
      inFlight.add(start.apply(batch));
    }
    if (inFlight.isEmpty()) {
      return false;
    }
    action.accept(inFlight.remove());
    return true;
  }

  /** Doesn't split: a parallel stream would begin the calls of all that it splits off. */
  @Override
  public @Nullable Spliterator<Batch> trySplit() {
    return null;
  }

  @Override
  public long estimateSize() {
    return Long.MAX_VALUE; // unknown
  }

  @Override
  public int characteristics() {
    return ORDERED | NONNULL;
  }

  /** Cancels the calls in flight. */
  @Override
  public void close() {
    inFlight.forEach(Batch::cancel);
  }
}
