package example.userprofile.client;

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
import java.util.List;
import java.util.Optional;
import java.util.function.Predicate;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** Reads failures from what servers and gRPC send. */
final class Failures {

  private static final Metadata.Key<String> PUSHBACK =
      Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

  private static final String DOMAIN = "userprofile";

  // The form of the service's reasons and request ids. Anything else is not from the service.
  private static final Predicate<String> REASON =
      Pattern.compile("[A-Z][A-Z0-9_]{0,62}").asMatchPredicate();
  static final Predicate<String> REQUEST_ID = Pattern.compile("[!-~]{1,128}").asMatchPredicate();

  /** About the size of a message, which no retry makes smaller. */
  private static final Pattern SIZE =
      Pattern.compile("larger than|size|too large", Pattern.CASE_INSENSITIVE);

  /** The index within a batch, which means nothing to a caller whose usernames were split. */
  private static final Pattern INDEX = Pattern.compile("s\\[\\d+]$");

  /** Limit of a message in UTF-16 units. The service's have about 100. */
  private static final int MAX_MESSAGE = 1000;

  // Control characters, line ends, bidirectional formatting and invisible characters.
  private static final Pattern UNPRINTABLE = Pattern.compile("[\\p{C}\\p{Zl}\\p{Zp}]");

  private Failures() {}

  static Failure from(StatusRuntimeException error, Call call) {
    Status status = error.getStatus();
    var read =
        Gateway.inWords(status)
            .map(Failures::withoutDetails)
            .or(() -> details(error))
            .orElseGet(() -> withoutDetails(call.inWords(status)));
    return from(read, error.getTrailers(), call.requestId());
  }

  /** Takes the request id of the call if no detail has it, as in the results of a batch. */
  static Failure from(
      com.google.rpc.Status status, @Nullable Metadata trailers, String callsRequestId) {
    Status.Code code = Status.fromCodeValue(status.getCode()).getCode();
    if (code == Status.Code.OK) { // an error with code OK
      code = Status.Code.UNKNOWN;
    }
    var failure =
        Failure.builder(code, printable(status.getMessage()))
            .violations(
                detail(status, BadRequest.class).stream()
                    .flatMap(badRequest -> badRequest.getFieldViolationsList().stream())
                    .map(Failures::violation)
                    .toList())
            .requestId(
                detail(status, RequestInfo.class)
                    .map(RequestInfo::getRequestId)
                    .filter(REQUEST_ID)
                    .orElse(callsRequestId));
    var reason =
        detail(status, ErrorInfo.class)
            .filter(info -> info.getDomain().equals(DOMAIN))
            .map(ErrorInfo::getReason)
            .filter(REASON);
    if (reason.isPresent()) {
      failure.reason(reason.get()).retryable(detail(status, RetryInfo.class).isPresent());
    } else {
      var own = ownReason(code, status.getMessage());
      failure.reason(own.orElse(null)).retryable(own.isPresent() && !forbidsRetries(trailers));
    }
    return failure.build();
  }

  /**
   * The response is from a later version, or from another kind of server. Another user's profile
   * must never pass for the requested one.
   */
  static Failure unreadable(String requestId) {
    return Failure.builder(Status.Code.UNKNOWN, "The client can't read the server's response.")
        .requestId(requestId)
        .build();
  }

  /** The call has ended by what this side did, for example because the client was closed. */
  static Failure cancelled(String message, String requestId) {
    return Failure.builder(Status.Code.CANCELLED, message).requestId(requestId).build();
  }

  /** INVALID_USERNAME for a name that can't be sent. */
  static Failure invalidUsername(String problem) {
    return Failure.builder(Status.Code.INVALID_ARGUMENT, "The username is not valid.")
        .reason(ErrorReason.ERROR_REASON_INVALID_USERNAME)
        .violations(List.of(new Failure.Violation("username", problem)))
        .build();
  }

  /** Returns the client's reason for an error without a reason of the service. */
  private static Optional<String> ownReason(Status.Code code, String message) {
    return switch (code) {
      case UNAVAILABLE -> Optional.of(Failure.UNREACHABLE);
      case CANCELLED -> Optional.of(Failure.REFUSED); // the caller's own never get here
      case RESOURCE_EXHAUSTED ->
          SIZE.matcher(message).find() ? Optional.empty() : Optional.of(Failure.REFUSED);
      default -> Optional.empty();
    };
  }

  private static Failure.Violation violation(BadRequest.FieldViolation violation) {
    String field = INDEX.matcher(violation.getField()).replaceFirst("");
    return new Failure.Violation(printable(field), printable(violation.getDescription()));
  }

  /** Returns the status with its details, if there are any that don't contradict it. */
  private static Optional<com.google.rpc.Status> details(StatusRuntimeException error) {
    try {
      return Optional.ofNullable(StatusProto.fromThrowable(error))
          .filter(status -> status.getDetailsCount() > 0);
    } catch (IllegalArgumentException malformedOrContradicting) {
      return Optional.empty(); // not from our server
    }
  }

  private static com.google.rpc.Status withoutDetails(Status status) {
    String message = Optional.ofNullable(status.getDescription()).orElse(status.getCode().name());
    return com.google.rpc.Status.newBuilder()
        .setCode(status.getCode().value())
        .setMessage(message)
        .build();
  }

  /** Follows gRPC's rule: a pushback that is no number forbids retries, as -1 does. */
  private static boolean forbidsRetries(@Nullable Metadata trailers) {
    String pushback = trailers == null ? null : trailers.get(PUSHBACK);
    return pushback != null && !pushback.matches("[0-9]+");
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
}
