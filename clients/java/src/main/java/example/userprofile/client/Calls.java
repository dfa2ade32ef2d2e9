package example.userprofile.client;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.Metadata;
import java.time.Duration;
import java.util.Objects;
import java.util.Optional;
import java.util.UUID;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/** Makes calls of the client's settings and of each request's options. */
record Calls(
    String target,
    Duration timeout,
    boolean waitForReady,
    Metadata metadata,
    @Nullable Supplier<String> token) {

  static final Metadata.Key<String> REQUEST_ID =
      Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER);

  private static final Duration LONGEST = Duration.ofDays(1);

  /** Returns the same for calls that fail if no server can be reached. */
  Calls withoutWaiting() {
    return new Calls(target, timeout, false, metadata, token);
  }

  /** Begins a call; a supplier of tokens runs here, in the calling thread. */
  Call begin(Connections connections, Connection connection, RequestOptions options) {
    var headers = new Metadata();
    headers.merge(metadata);
    headers.merge(options.metadata);
    var propagated = ContextPropagation.current();
    propagated.addTrace(headers);
    String requestId =
        Optional.ofNullable(options.requestId)
            .or(propagated::requestId)
            .orElseGet(() -> UUID.randomUUID().toString());
    headers.put(REQUEST_ID, requestId);
    return new Call(
        connections,
        connection,
        target,
        withinContext(Objects.requireNonNullElse(options.timeout, timeout)),
        Objects.requireNonNullElse(options.waitForReady, waitForReady),
        requestId,
        headers,
        token == null
            ? null
            : new BearerToken(Objects.requireNonNull(token.get(), "the supplier's token is null")));
  }

  /** Returns the time until the deadline of the context, which errors name too, if it is less. */
  private static Duration withinContext(Duration timeout) {
    Deadline callers = Context.current().getDeadline();
    if (callers == null) {
      return timeout;
    }
    long left = Math.max(callers.timeRemaining(NANOSECONDS), 0);
    return Duration.ofNanos(Math.min(left, timeout.toNanos()));
  }

  /** Throws IllegalArgumentException for a timeout of zero, or of more than a day. */
  static void checkTimeout(Duration timeout) {
    if (timeout.isNegative() || timeout.isZero() || timeout.compareTo(LONGEST) > 0) {
      throw new IllegalArgumentException(
          "the timeout must be more than zero and at most a day, not " + timeout);
    }
  }

  /** Copies metadata, or throws IllegalArgumentException for keys that have options. */
  static Metadata copyOf(Metadata metadata) {
    for (String key : metadata.keys()) {
      if (key.equals(REQUEST_ID.name()) || key.equals(BearerToken.AUTHORIZATION.name())) {
        throw new IllegalArgumentException(
            "metadata must not have %s; there is an option for it".formatted(key));
      }
      if (key.startsWith("grpc-")) {
        throw new IllegalArgumentException("metadata must not have %s: gRPC's own".formatted(key));
      }
    }
    var copy = new Metadata();
    copy.merge(metadata);
    return copy;
  }

  /** Omits the metadata and the token, which may be secrets. */
  @Override
  public String toString() {
    return "Calls[%s]".formatted(target);
  }
}
