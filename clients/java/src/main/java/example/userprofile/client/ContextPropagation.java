package example.userprofile.client;

import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * Passes on, for a gRPC server that calls userprofile itself, the request id and the trace context
 * ({@code traceparent} and {@code tracestate}) of the calls it serves. gRPC itself passes on their
 * deadlines and cancellations. Add it to the server, {@code serverBuilder.intercept(new
 * ContextPropagation())}; it works by the {@link Context}.
 *
 * <p>With OpenTelemetry, which propagates the trace itself, the client sends OpenTelemetry's.
 */
public final class ContextPropagation implements ServerInterceptor {

  private static final Metadata.Key<String> PARENT =
      Metadata.Key.of("traceparent", Metadata.ASCII_STRING_MARSHALLER);
  private static final Metadata.Key<String> STATE =
      Metadata.Key.of("tracestate", Metadata.ASCII_STRING_MARSHALLER);

  private static final Context.Key<Received> RECEIVED =
      Context.keyWithDefault("userprofile-received", new Received(null, null, null));

  record Received(@Nullable String id, @Nullable String parent, @Nullable String state) {

    /** Returns the request id, unless it is malformed. */
    Optional<String> requestId() {
      return Optional.ofNullable(id).filter(Failures.REQUEST_ID);
    }

    /** Adds the trace context, unless there is one. */
    void addTrace(Metadata headers) {
      if (parent != null && !headers.containsKey(PARENT)) {
        headers.put(PARENT, parent);
        if (state != null) {
          headers.put(STATE, state);
        }
      }
    }
  }

  /** Makes one. */
  public ContextPropagation() {}

  static Received current() {
    return RECEIVED.get();
  }

  @Override
  public <Q, R> ServerCall.Listener<Q> interceptCall(
      ServerCall<Q, R> call, Metadata headers, ServerCallHandler<Q, R> next) {
    var states = headers.getAll(STATE);
    var received =
        new Received(
            headers.get(Calls.REQUEST_ID),
            headers.get(PARENT),
            // Repeated headers are equivalent to one with commas (RFC 9110, 5.3).
            states == null ? null : String.join(",", states));
    return Contexts.interceptCall(
        Context.current().withValue(RECEIVED, received), call, headers, next);
  }
}
