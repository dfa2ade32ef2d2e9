package userprofile.client;

import java.util.Optional;
import userprofile.v1.UserProfile;

/**
 * A public user profile. What the stored profile lacks is empty; an empty text and {@code false}
 * are values.
 *
 * @param username the name under which the user was asked for
 * @param email the e-mail address, not checked for form
 * @param fullName the name to show to people
 * @param disabled whether the account was switched off; empty if nobody ever said
 */
public record User(
    String username, Optional<String> email, Optional<String> fullName, Optional<Boolean> disabled)
    implements UserResult {

  static User from(UserProfile.User message) {
    return new User(
        message.getUsername(),
        message.hasEmail() ? Optional.of(message.getEmail()) : Optional.empty(),
        message.hasFullName() ? Optional.of(message.getFullName()) : Optional.empty(),
        message.hasDisabled() ? Optional.of(message.getDisabled()) : Optional.empty());
  }
}
