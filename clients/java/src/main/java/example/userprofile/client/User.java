package example.userprofile.client;

import com.google.protobuf.TextFormat;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * A public user profile. A field is empty if it has no value or was not requested; an empty string
 * and {@code false} are values.
 */
// No record: its constructor would list the fields, and a further one would break who calls it.
public final class User implements UserResult {

  private final example.userprofile.v1.User message;

  private User(example.userprofile.v1.User message) {
    this.message = message;
  }

  static User from(example.userprofile.v1.User message) {
    return new User(message);
  }

  /**
   * Returns a builder of a user, for tests of code that calls the client.
   *
   * @param username the username
   * @return a builder with no other field set
   */
  public static Builder builder(String username) {
    return new Builder(username);
  }

  /**
   * Returns the username.
   *
   * @return the username, which is always set
   */
  public String username() {
    return message.getUsername();
  }

  /**
   * Returns the e-mail address. Its syntax is not checked.
   *
   * @return the address, if set
   */
  public Optional<String> email() {
    return message.hasEmail() ? Optional.of(message.getEmail()) : Optional.empty();
  }

  /**
   * Returns the full name.
   *
   * @return the name, if set
   */
  public Optional<String> fullName() {
    return message.hasFullName() ? Optional.of(message.getFullName()) : Optional.empty();
  }

  /**
   * Returns whether the account is disabled.
   *
   * @return whether it is, if set
   */
  public Optional<Boolean> disabled() {
    return message.hasDisabled() ? Optional.of(message.getDisabled()) : Optional.empty();
  }

  @Override
  public boolean equals(@Nullable Object other) {
    return other instanceof User user && user.message.equals(message);
  }

  @Override
  public int hashCode() {
    return message.hashCode();
  }

  /** Returns the fields that are set. */
  @Override
  public String toString() {
    return "User{%s}"
        .formatted(TextFormat.printer().emittingSingleLine(true).printToString(message).strip());
  }

  /** Builder of a user. */
  public static final class Builder {

    private final example.userprofile.v1.User.Builder message;

    private Builder(String username) {
      message = example.userprofile.v1.User.newBuilder().setUsername(username);
    }

    /**
     * Sets the e-mail address.
     *
     * @param email the address
     * @return this builder
     */
    public Builder email(String email) {
      message.setEmail(email);
      return this;
    }

    /**
     * Sets the full name.
     *
     * @param fullName the name
     * @return this builder
     */
    public Builder fullName(String fullName) {
      message.setFullName(fullName);
      return this;
    }

    /**
     * Sets whether the account is disabled.
     *
     * @param disabled whether it is
     * @return this builder
     */
    public Builder disabled(boolean disabled) {
      message.setDisabled(disabled);
      return this;
    }

    /**
     * Makes the user.
     *
     * @return the user
     */
    public User build() {
      return new User(message.build());
    }
  }
}
