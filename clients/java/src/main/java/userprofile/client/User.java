package userprofile.client;

import java.util.Optional;

/**
 * A public user profile. A field is empty if it has no value or was not requested; an empty string
 * and {@code false} are values.
 *
 * @param username the username
 * @param email the e-mail address; its syntax is not checked
 * @param fullName the full name
 * @param disabled whether the account is disabled
 */
public record User(
    String username, Optional<String> email, Optional<String> fullName, Optional<Boolean> disabled)
    implements UserResult {

  static User from(example.userprofile.v1.User message) {
    return new User(
        message.getUsername(),
        message.hasEmail() ? Optional.of(message.getEmail()) : Optional.empty(),
        message.hasFullName() ? Optional.of(message.getFullName()) : Optional.empty(),
        message.hasDisabled() ? Optional.of(message.getDisabled()) : Optional.empty());
  }
}
