package userprofile.client;

import io.grpc.StatusRuntimeException;

/** A call that failed as a whole. */
public final class UserProfileException extends RuntimeException {

  private static final long serialVersionUID = 1L;

  private final transient Failure failure;

  UserProfileException(Failure failure, StatusRuntimeException cause) {
    super(failure.toString(), cause);
    this.failure = failure;
  }

  /**
   * Tells why the call failed.
   *
   * @return the reason and whatever else is known
   */
  public Failure failure() {
    return failure;
  }
}
