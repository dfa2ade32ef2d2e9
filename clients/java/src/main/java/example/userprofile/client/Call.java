package example.userprofile.client;

import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** What one call is made with. */
record Call(
    Connections connections,
    Connection connection,
    String target,
    Duration timeout,
    boolean waitForReady,
    String requestId,
    Metadata headers,
    @Nullable BearerToken token) {

  /** Returns the stub that makes the call. */
  <S extends AbstractStub<S>> S on(S stub) {
    S made =
        stub.withDeadlineAfter(timeout)
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
    if (waitForReady) {
      made = made.withWaitForReady();
    }
    return token == null ? made : made.withCallCredentials(token);
  }

  /** Returns the error with which the call has ended. */
  UserProfileException failed(StatusRuntimeException error) {
    Status status = error.getStatus();
    if (connections.isClosed()
        && (status.getCode() == Status.Code.UNAVAILABLE
            || status.getCode() == Status.Code.CANCELLED)) {
      return cancelled("The client was closed.", error);
    }
    if (status.getCode() == Status.Code.CANCELLED) {
      if (Thread.currentThread().isInterrupted() || Context.current().isCancelled()) {
        return cancelled("The caller cancelled the call.", error);
      }
      if (status.getCause() != null) { // by gRPC here, which couldn't parse the response
        return new UserProfileException(Failures.unreadable(requestId), error);
      }
    }
    if (status.getCode() == Status.Code.DEADLINE_EXCEEDED) {
      error = connection.connectionError().orElse(error);
    }
    return new UserProfileException(Failures.from(error, this), error);
  }

  UserProfileException cancelled(String message, @Nullable StatusRuntimeException cause) {
    return new UserProfileException(Failures.cancelled(message, requestId), cause);
  }

  /** Returns a status that gRPC or a proxy made, with what only the client knows. */
  Status inWords(Status status) {
    String technical =
        Objects.requireNonNullElse(status.getDescription(), status.getCode().name());
    return switch (status.getCode()) {
      case DEADLINE_EXCEEDED ->
          status.withDescription(
              "no response from %s within %s s (%s)"
                  .formatted(target, timeout.toMillis() / 1000.0, technical));
      case UNIMPLEMENTED ->
          status.withDescription(
              "the server at %s doesn't have this method: it isn't a userprofile service, or an"
                      .formatted(target)
                  + " older one (%s)".formatted(technical));
      default -> status;
    };
  }

  /** Omits the metadata and the token, which may be secrets. */
  @Override
  public String toString() {
    return "Call[%s]".formatted(requestId);
  }
}
