package example.userprofile.client;

import example.userprofile.v1.ErrorReason;
import io.grpc.Status;
import java.io.Serializable;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/** The error of a call, or of one username among several. */
public final class Failure implements UserResult, Serializable {

  private static final long serialVersionUID = 1L;

  /** The client's own reason for UNAVAILABLE: no server sent a response. */
  public static final String UNREACHABLE = name(ErrorReason.ERROR_REASON_SERVICE_UNREACHABLE);

  /** The client's own reason for a call that gRPC, in a server or proxy, dropped. */
  public static final String REFUSED = name(ErrorReason.ERROR_REASON_CALL_REFUSED);

  /**
   * A field of the request that is not valid.
   *
   * @param field the path of the field, for example {@code read_mask.paths}
   * @param description the problem, for people
   */
  public record Violation(String field, String description) implements Serializable {}

  // What equals and hashCode go by. Private, so that a further component breaks nobody.
  private record Fields(
      Status.Code code,
      String message,
      @Nullable String reason,
      boolean retryable,
      List<Violation> violations,
      @Nullable String requestId)
      implements Serializable {}

  private final Fields fields;

  private Failure(Fields fields) {
    this.fields = fields;
  }

  /**
   * Returns a builder of a failure, for tests of code that calls the client.
   *
   * @param code the gRPC status code
   * @param message a sentence for people
   * @return a builder with nothing else set
   */
  public static Builder builder(Status.Code code, String message) {
    return new Builder(code, message);
  }

  /**
   * Returns the gRPC status code.
   *
   * @return the code
   */
  public Status.Code code() {
    return fields.code;
  }

  /**
   * Returns a sentence for people. Programs check the code and the reason.
   *
   * @return the sentence
   */
  public String message() {
    return fields.message;
  }

  /**
   * Returns the service's reason, for example {@code USER_NOT_FOUND} (see {@link #isFor}), or the
   * client's own: {@link #UNREACHABLE} or {@link #REFUSED}.
   *
   * @return the reason, empty if the error is neither's, but a gateway's or gRPC's
   */
  public Optional<String> reason() {
    return Optional.ofNullable(fields.reason);
  }

  /**
   * Returns whether a retry may help after a pause: the service says so, or no server sent a
   * response.
   *
   * @return whether it may
   */
  public boolean retryable() {
    return fields.retryable;
  }

  /**
   * Returns the invalid fields of the request.
   *
   * @return the fields, if any
   */
  public List<Violation> violations() {
    return fields.violations;
  }

  /**
   * Returns what identifies the call in the server's log. It is the same for all usernames of a
   * call.
   *
   * @return the id, empty if no call was made
   */
  public Optional<String> requestId() {
    return Optional.ofNullable(fields.requestId);
  }

  /**
   * Returns whether the service returned USER_NOT_FOUND. A NOT_FOUND from a proxy doesn't count.
   *
   * @return whether there is no such user
   */
  public boolean isUserNotFound() {
    return fields.code == Status.Code.NOT_FOUND && isFor(ErrorReason.ERROR_REASON_USER_NOT_FOUND);
  }

  /**
   * Returns whether the failure has this reason of the contract.
   *
   * @param reason a reason of the contract
   * @return whether the failure has it
   */
  public boolean isFor(ErrorReason reason) {
    return name(reason).equals(fields.reason);
  }

  @Override
  public boolean equals(@Nullable Object other) {
    return other instanceof Failure failure && failure.fields.equals(fields);
  }

  @Override
  public int hashCode() {
    return fields.hashCode();
  }

  /** Returns the code, reason, message, violations and request id. */
  @Override
  public String toString() {
    StringBuilder text = new StringBuilder(fields.code.name());
    reason().ifPresent(it -> text.append(" (").append(it).append(')'));
    text.append(": ").append(fields.message);
    violations()
        .forEach(
            it ->
                text.append(" [").append(it.field).append(": ").append(it.description).append(']'));
    requestId().ifPresent(it -> text.append(" [request id ").append(it).append(']'));
    return text.toString();
  }

  /** Returns the name of a reason without its prefix. */
  private static String name(ErrorReason reason) {
    return reason.name().replaceFirst("^ERROR_REASON_", "");
  }

  /** Builder of a failure. */
  public static final class Builder {

    private final Status.Code code;
    private final String message;
    private @Nullable String reason;
    private boolean retryable;
    private List<Violation> violations = List.of();
    private @Nullable String requestId;

    private Builder(Status.Code code, String message) {
      this.code = code;
      this.message = message;
    }

    /**
     * Sets the reason.
     *
     * @param reason a reason of the contract
     * @return this builder
     */
    public Builder reason(ErrorReason reason) {
      return reason(name(reason));
    }

    /** Sets a reason that may be younger than this client. */
    Builder reason(@Nullable String reason) {
      this.reason = reason;
      return this;
    }

    /**
     * Sets whether a retry may help.
     *
     * @param retryable whether it may
     * @return this builder
     */
    public Builder retryable(boolean retryable) {
      this.retryable = retryable;
      return this;
    }

    /**
     * Sets the invalid fields of the request.
     *
     * @param violations the fields
     * @return this builder
     */
    public Builder violations(List<Violation> violations) {
      this.violations = List.copyOf(violations);
      return this;
    }

    /**
     * Sets the id of the call.
     *
     * @param requestId the id
     * @return this builder
     */
    public Builder requestId(String requestId) {
      this.requestId = requestId;
      return this;
    }

    /**
     * Makes the failure.
     *
     * @return the failure
     */
    public Failure build() {
      return new Failure(new Fields(code, message, reason, retryable, violations, requestId));
    }
  }
}
