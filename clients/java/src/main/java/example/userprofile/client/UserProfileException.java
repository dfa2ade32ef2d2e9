package example.userprofile.client;

import io.grpc.StatusRuntimeException;
import org.jspecify.annotations.Nullable;

/** The error of a call. Serialization drops its cause, which is not serializable. */
public final class UserProfileException extends RuntimeException {

  private static final long serialVersionUID = 1L;

  private final Failure failure;

  UserProfileException(Failure failure, @Nullable StatusRuntimeException cause) {
    super(failure.toString(), cause);
    this.failure = failure;
  }

  /**
   * Makes the error of a failure, for tests of code that calls the client.
   *
   * @param failure why the call failed
   */
  public UserProfileException(Failure failure) {
    this(failure, null);
  }

  /**
   * Returns why the call failed.
   *
   * @return the failure
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
