package userprofile.client;

import io.grpc.Status;
import java.util.Map;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Says what has happened where gRPC says what it has seen, on many lines. */
final class Gateway {

  private static final Pattern HTTP_STATUS = Pattern.compile("HTTP status code (\\d{3})\\b");

  /** In gRPC's message where a call waited for a server until its deadline. */
  private static final Pattern LAST_FAILURE =
      Pattern.compile(
          "Last Pick Failure=Status\\{code=\\w+, description=([^\\n]*?)"
              + "(?:, cause=(?:[\\w.$]+: )?([^\\n]*?))?[}\\n].*was_still_waiting",
          Pattern.DOTALL);

  private static final Map<Integer, String> MEANING =
      Map.of(
          401, "the token is missing or wrong",
          403, "it lets this call, or this caller, not through",
          404, "it has no route to the service",
          429, "it takes fewer calls than these",
          502, "it gets no answer from the service",
          503, "the service is not available to it",
          504, "the service took longer than it waits");

  private Gateway() {}

  static Status inWords(Status status) {
    String description = Optional.ofNullable(status.getDescription()).orElse("");
    Matcher http = HTTP_STATUS.matcher(description);
    if (http.lookingAt()) {
      String meaning =
          Optional.ofNullable(MEANING.get(Integer.valueOf(http.group(1))))
              .map(it -> ": " + it)
              .orElse("");
      return status.withDescription(
          "A gateway answered HTTP %s in place of the service%s."
              .formatted(http.group(1), meaning));
    }
    Matcher last = LAST_FAILURE.matcher(description);
    if (status.getCode() == Status.Code.DEADLINE_EXCEEDED && last.find()) {
      String cause = Optional.ofNullable(last.group(2)).map(it -> ": " + it).orElse("");
      return Status.UNAVAILABLE.withDescription(
          "No server could be reached in time: " + last.group(1) + cause);
    }
    if (status.getCode() == Status.Code.UNAVAILABLE && status.getCause() != null) {
      // gRPC says "io exception", and what kind of one only in the cause.
      return status.withDescription(description + ": " + status.getCause().getMessage());
    }
    return status;
  }
}
