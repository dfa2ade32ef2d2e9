package example.userprofile.client;

import io.grpc.Status;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Replaces gRPC's technical messages by their meaning. */
final class Gateway {

  private static final Pattern HTTP_STATUS = Pattern.compile("HTTP status code (\\d{3})\\b");

  /** Part of gRPC's message if no server became reachable before the deadline. */
  private static final Pattern LAST_FAILURE =
      Pattern.compile(
          "Last Pick Failure=Status\\{code=\\w+, description=([^\\n]*?)"
              + "(?:, cause=(?:[\\w.$]+: )?([^\\n]*?))?[}\\n].*was_still_waiting",
          Pattern.DOTALL);

  private static final Map<Integer, String> MEANING =
      Map.of(
          401, "the token is missing or wrong",
          403, "it does not allow this call or this caller",
          404, "it has no route to the service",
          429, "it limits the rate of calls",
          502, "it got no valid response from the service",
          503, "it can't reach the service",
          504, "it got no response from the service in time");

  private Gateway() {}

  /** Returns the status with its meaning, empty if there is nothing to replace. */
  static Optional<Status> inWords(Status status) {
    String description = Optional.ofNullable(status.getDescription()).orElse("");
    Matcher http = HTTP_STATUS.matcher(description);
    if (http.lookingAt()) {
      String meaning =
          Optional.ofNullable(MEANING.get(Integer.valueOf(http.group(1))))
              .map(it -> ": " + it)
              .orElse("");
      return Optional.of(
          status.withDescription(
              "A gateway returned HTTP %s in place of the service%s."
                  .formatted(http.group(1), meaning)));
    }
    Matcher last = LAST_FAILURE.matcher(description);
    if (status.getCode() == Status.Code.DEADLINE_EXCEEDED && last.find()) {
      String cause = Optional.ofNullable(last.group(2)).map(it -> ": " + it).orElse("");
      return Optional.of(
          Status.UNAVAILABLE.withDescription(
              "No server could be reached in time: " + last.group(1) + cause));
    }
    if (status.getCode() == Status.Code.UNAVAILABLE && status.getCause() != null) {
      // gRPC's description is only "io exception"; the cause has the rest.
      Throwable cause = status.getCause();
      String seen =
          Objects.requireNonNullElse(cause.getMessage(), cause.getClass().getSimpleName());
      return Optional.of(status.withDescription(description + ": " + seen));
    }
    return Optional.empty();
  }
}
