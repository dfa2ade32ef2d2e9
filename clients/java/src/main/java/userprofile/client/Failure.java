package userprofile.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.io.Serializable;
import java.util.List;
import java.util.Optional;
import java.util.function.Predicate;
import java.util.regex.Pattern;

/**
 * Why there is no answer, or no user.
 *
 * @param code the gRPC status code
 * @param message a sentence for a person; programs look at the code and the reason
 * @param reason the service's reason, for example {@code USER_NOT_FOUND}, or {@link #UNREACHABLE};
 *     empty if something else answered in its place
 * @param violations the fields of the request that are to blame, if any
 * @param requestId finds the call in the server's log, for one name of a batch the whole batch;
 *     empty if the service did not answer
 */
public record Failure(
    Status.Code code,
    String message,
    Optional<String> reason,
    List<Violation> violations,
    Optional<String> requestId)
    implements UserResult, Serializable {

  /** The client's own reason for UNAVAILABLE: no server gave an answer. */
  public static final String UNREACHABLE = "SERVICE_UNREACHABLE";

  private static final Metadata.Key<String> REQUEST_ID =
      Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER);

  private static final String DOMAIN = "userprofile";

  // What the service's reasons and request ids look like. Anything else isn't ours.
  private static final Predicate<String> REASON =
      Pattern.compile("[A-Z][A-Z0-9_]{0,62}").asMatchPredicate();
  private static final Predicate<String> IS_REQUEST_ID =
      Pattern.compile("[ -~]{1,128}").asMatchPredicate();

  /** What of a message is kept, in UTF-16 units; what is longer isn't written for people. */
  private static final int MAX_MESSAGE = 1000;

  // Control characters, line ends, what changes the direction of writing, what can't be seen.
  private static final Pattern UNPRINTABLE = Pattern.compile("[\\p{C}\\p{Zl}\\p{Zp}]");

  /**
   * A field of the request that is not valid.
   *
   * @param field the path of the field, for example {@code usernames[3]}
   * @param description what is wrong with it, for a person
   */
  public record Violation(String field, String description) implements Serializable {}

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
    Metadata trailers = error.getTrailers();
    Status status = Gateway.inWords(error.getStatus());
    if (status != error.getStatus()) {
      return from(StatusProto.fromStatusAndTrailers(status, null), trailers);
    }
    try {
      return from(StatusProto.fromThrowable(error), trailers);
    } catch (IllegalArgumentException malformedOrContradictingDetails) {
      // Not our server's, and no reason to lose the status itself.
      return from(StatusProto.fromStatusAndTrailers(error.getStatus(), null), trailers);
    }
  }

  /** Takes the request id from the trailers where no detail has it, as for one name of a batch. */
  static Failure from(com.google.rpc.Status status, Metadata trailers) {
    Status.Code code = Status.fromCodeValue(status.getCode()).getCode();
    if (code == Status.Code.OK) { // an error that says that it is none
      code = Status.Code.UNKNOWN;
    }
    Optional<String> reason =
        detail(status, ErrorInfo.class)
            .filter(info -> info.getDomain().equals(DOMAIN))
            .map(ErrorInfo::getReason)
            .filter(REASON);
    if (code == Status.Code.UNAVAILABLE) {
      reason = reason.or(() -> Optional.of(UNREACHABLE));
    }
    return new Failure(
        code,
        printable(status.getMessage()),
        reason,
        detail(status, BadRequest.class).stream()
            .flatMap(badRequest -> badRequest.getFieldViolationsList().stream())
            .map(it -> new Violation(printable(it.getField()), printable(it.getDescription())))
            .toList(),
        detail(status, RequestInfo.class)
            .map(RequestInfo::getRequestId)
            .filter(IS_REQUEST_ID)
            .or(() -> requestId(trailers)));
  }

  /**
   * The answer is that of a later version, or of a server that isn't ours. Another user's profile
   * must never pass for the one that was asked for.
   */
  static Failure notUnderstood(Metadata trailers) {
    return new Failure(
        Status.Code.UNKNOWN,
        "The server's answer is one that this client doesn't understand.",
        Optional.empty(),
        List.of(),
        requestId(trailers));
  }

  /** What the service would say of a name that can't be put into a request. */
  static Failure notUnicode(String field) {
    return new Failure(
        Status.Code.INVALID_ARGUMENT,
        "The username is not valid.",
        Optional.of("INVALID_USERNAME"),
        List.of(new Violation(field, "must be valid Unicode")),
        Optional.empty());
  }

  private static Optional<String> requestId(Metadata trailers) {
    return Optional.ofNullable(trailers).map(it -> it.get(REQUEST_ID)).filter(IS_REQUEST_ID);
  }

  /** Escapes what would steer a terminal, or deceive who reads. */
  private static String printable(String text) {
    int more = text.length() - MAX_MESSAGE;
    String kept =
        more > 0 ? text.substring(0, MAX_MESSAGE) + "… (" + more + " more characters)" : text;
    return UNPRINTABLE
        .matcher(kept)
        .replaceAll(it -> "\\\\u{%x}".formatted(it.group().codePointAt(0)));
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

  private Object writeReplace() {
    return new Serialized(
        code, message, reason.orElse(null), List.copyOf(violations), requestId.orElse(null));
  }

  /** An Optional can't be serialized. */
  private record Serialized(
      Status.Code code, String message, String reason, List<Violation> violations, String requestId)
      implements Serializable {

    private Object readResolve() {
      return new Failure(
          code, message, Optional.ofNullable(reason), violations, Optional.ofNullable(requestId));
    }
  }
}
