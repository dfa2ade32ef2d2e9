package userprofile.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.List;
import java.util.Optional;

/**
 * Why there is no answer, or no user.
 *
 * @param code the gRPC status code
 * @param message a sentence for a person; programs look at the code and the reason
 * @param reason the service's reason, for example {@code USER_NOT_FOUND}; empty if something else
 *     answered in its place
 * @param violations the fields of the request that are to blame, if any
 * @param requestId finds the call in the server's log; empty for one name of a batch, and if the
 *     service did not answer
 */
public record Failure(
    Status.Code code,
    String message,
    Optional<String> reason,
    List<Violation> violations,
    Optional<String> requestId)
    implements UserResult {

  private static final String DOMAIN = "userprofile";

  /**
   * A field of the request that is not valid.
   *
   * @param field the path of the field, for example {@code usernames[3]}
   * @param description what is wrong with it, for a person
   */
  public record Violation(String field, String description) {}

  /**
   * Tells whether the service says that nobody has the name. A NOT_FOUND of something else on the
   * way there, like a proxy, doesn't count.
   *
   * @return whether there is no such user
   */
  public boolean isUserNotFound() {
    return code == Status.Code.NOT_FOUND && reason.equals(Optional.of("USER_NOT_FOUND"));
  }

  static Failure from(StatusRuntimeException error) {
    try {
      return from(StatusProto.fromThrowable(error));
    } catch (IllegalArgumentException malformedOrContradictingDetails) {
      // Not our server's, and no reason to lose the status itself.
      return from(StatusProto.fromStatusAndTrailers(error.getStatus(), null));
    }
  }

  static Failure from(com.google.rpc.Status status) {
    return new Failure(
        Status.fromCodeValue(status.getCode()).getCode(),
        status.getMessage(),
        detail(status, ErrorInfo.class)
            .filter(info -> info.getDomain().equals(DOMAIN))
            .map(ErrorInfo::getReason),
        detail(status, BadRequest.class).stream()
            .flatMap(badRequest -> badRequest.getFieldViolationsList().stream())
            .map(it -> new Violation(it.getField(), it.getDescription()))
            .toList(),
        detail(status, RequestInfo.class).map(RequestInfo::getRequestId));
  }

  static Failure unknown(String message) {
    return new Failure(Status.Code.UNKNOWN, message, Optional.empty(), List.of(), Optional.empty());
  }

  private static <T extends Message> Optional<T> detail(
      com.google.rpc.Status status, Class<T> type) {
    for (Any detail : status.getDetailsList()) {
      if (detail.is(type)) {
        try {
          return Optional.of(detail.unpack(type));
        } catch (InvalidProtocolBufferException malformed) {
          return Optional.empty();
        }
      }
    }
    return Optional.empty();
  }

  /** Returns the message with what helps to find the cause. */
  @Override
  public String toString() {
    StringBuilder text = new StringBuilder(code.name());
    reason.ifPresent(it -> text.append(" (").append(it).append(')'));
    text.append(": ").append(message);
    violations.forEach(
        it -> text.append(" [").append(it.field).append(": ").append(it.description).append(']'));
    requestId.ifPresent(it -> text.append(" [request id ").append(it).append(']'));
    return text.toString();
  }
}
