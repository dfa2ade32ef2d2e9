package userprofile.client;

import io.grpc.StatusRuntimeException;

/** A call that failed as a whole. Serialized, it loses its cause, which gRPC can't serialize. */
public final class UserProfileException extends RuntimeException {

  private static final long serialVersionUID = 1L;

  private final Failure failure;

  UserProfileException(Failure failure, StatusRuntimeException cause) {
    super(failure.toString(), cause);
    this.failure = failure;
  }

  UserProfileException(Failure failure) {
    this(failure, null);
  }

  /**
   * Tells why the call failed.
   *
   * @return the reason and whatever else is known
   */
  public Failure failure() {
    return failure;
  }

  private Object writeReplace() {
    if (getCause() == null) {
      return this;
    }
    var copy = new UserProfileException(failure);
    copy.setStackTrace(getStackTrace());
    for (Throwable suppressed : getSuppressed()) {
      copy.addSuppressed(suppressed);
    }
    return copy;
  }
}
