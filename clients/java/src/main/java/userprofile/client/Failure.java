package userprofile.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import example.userprofile.v1.ErrorReason;
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
 * The error of a call, or of one username of a batch.
 *
 * @param code the gRPC status code
 * @param message a sentence for people; programs check the code and the reason
 * @param reason the service's reason, for example {@code USER_NOT_FOUND} ({@link #isFor}), or
 *     {@link #UNREACHABLE}; empty if the error is not from the service
 * @param retryable whether a retry may help after a pause: the service says so, or no server sent a
 *     response
 * @param violations the invalid fields of the request, if any
 * @param requestId identifies the call in the server's log, the same for all results of a batch;
 *     empty if the service sent no response
 */
public record Failure(
    Status.Code code,
    String message,
    Optional<String> reason,
    boolean retryable,
    List<Violation> violations,
    Optional<String> requestId)
    implements UserResult, Serializable {

  /** The client's own reason for UNAVAILABLE: no server sent a response. */
  public static final String UNREACHABLE = reason(ErrorReason.ERROR_REASON_SERVICE_UNREACHABLE);

  private static final Metadata.Key<String> REQUEST_ID =
      Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER);

  private static final Metadata.Key<String> PUSHBACK =
      Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

  private static final String DOMAIN = "userprofile";

  // The form of the service's reasons and request ids. Anything else is not from the service.
  private static final Predicate<String> REASON =
      Pattern.compile("[A-Z][A-Z0-9_]{0,62}").asMatchPredicate();
  private static final Predicate<String> IS_REQUEST_ID =
      Pattern.compile("[ -~]{1,128}").asMatchPredicate();

  /** Limit of a message in UTF-16 units. The service's have about 100. */
  private static final int MAX_MESSAGE = 1000;

  // Control characters, line ends, bidirectional formatting and invisible characters.
  private static final Pattern UNPRINTABLE = Pattern.compile("[\\p{C}\\p{Zl}\\p{Zp}]");

  /**
   * A field of the request that is not valid.
   *
   * @param field the path of the field, for example {@code usernames[3]}
   * @param description the problem, for people
   */
  public record Violation(String field, String description) implements Serializable {}

  /**
   * Returns whether the service returned USER_NOT_FOUND. A NOT_FOUND from a proxy doesn't count.
   *
   * @return whether there is no such user
   */
  public boolean isUserNotFound() {
    return code == Status.Code.NOT_FOUND && isFor(ErrorReason.ERROR_REASON_USER_NOT_FOUND);
  }

  /**
   * Returns whether the failure has this reason of the contract.
   *
   * @param reason a reason of the contract
   * @return whether the failure has it
   */
  public boolean isFor(ErrorReason reason) {
    return this.reason.equals(Optional.of(reason(reason)));
  }

  /** Returns the name of a reason without its prefix. */
  private static String reason(ErrorReason reason) {
    return reason.name().replaceFirst("^ERROR_REASON_", "");
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
      // Not from our server; keep the status.
      return from(StatusProto.fromStatusAndTrailers(error.getStatus(), null), trailers);
    }
  }

  /** Takes the request id from the trailers if no detail has it, as in the results of a batch. */
  static Failure from(com.google.rpc.Status status, Metadata trailers) {
    Status.Code code = Status.fromCodeValue(status.getCode()).getCode();
    if (code == Status.Code.OK) { // an error with code OK
      code = Status.Code.UNKNOWN;
    }
    Optional<String> reason =
        detail(status, ErrorInfo.class)
            .filter(info -> info.getDomain().equals(DOMAIN))
            .map(ErrorInfo::getReason)
            .filter(REASON);
    boolean retryable = reason.isPresent() && detail(status, RetryInfo.class).isPresent();
    if (reason.isEmpty() && code == Status.Code.UNAVAILABLE) {
      reason = Optional.of(UNREACHABLE);
      retryable = !forbidsRetries(trailers);
    }
    return new Failure(
        code,
        printable(status.getMessage()),
        reason,
        retryable,
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
   * The response is from a later version, or from another kind of server. Another user's profile
   * must never pass for the requested one.
   */
  static Failure unreadable(Metadata trailers) {
    return new Failure(
        Status.Code.UNKNOWN,
        "The client can't read the server's response.",
        Optional.empty(),
        false,
        List.of(),
        requestId(trailers));
  }

  /** The status that the server has for a request of more bytes than it accepts. */
  static Failure tooLarge(int bytes, int limit) {
    return new Failure(
        Status.Code.RESOURCE_EXHAUSTED,
        "The request is too large: %d bytes, limit %d.".formatted(bytes, limit),
        Optional.empty(),
        false,
        List.of(),
        Optional.empty());
  }

  /** INVALID_USERNAME for a name that protobuf can't encode. */
  static Failure notUnicode(String field) {
    return new Failure(
        Status.Code.INVALID_ARGUMENT,
        "The username is not valid.",
        Optional.of(reason(ErrorReason.ERROR_REASON_INVALID_USERNAME)),
        false,
        List.of(new Violation(field, "must be valid Unicode")),
        Optional.empty());
  }

  private static Optional<String> requestId(Metadata trailers) {
    return Optional.ofNullable(trailers).map(it -> it.get(REQUEST_ID)).filter(IS_REQUEST_ID);
  }

  /** Follows gRPC's rule: a pushback that is no number forbids retries, as -1 does. */
  private static boolean forbidsRetries(Metadata trailers) {
    return trailers != null
        && trailers.containsKey(PUSHBACK)
        && !trailers.get(PUSHBACK).matches("[0-9]+");
  }

  /** Escapes characters that could control or spoof a terminal. */
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

  /** Returns the code, reason, message, violations and request id. */
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
        code,
        message,
        reason.orElse(null),
        retryable,
        List.copyOf(violations),
        requestId.orElse(null));
  }

  /** An Optional can't be serialized. */
  private record Serialized(
      Status.Code code,
      String message,
      String reason,
      boolean retryable,
      List<Violation> violations,
      String requestId)
      implements Serializable {

    private Object readResolve() {
      return new Failure(
          code,
          message,
          Optional.ofNullable(reason),
          retryable,
          violations,
          Optional.ofNullable(requestId));
    }
  }
}
