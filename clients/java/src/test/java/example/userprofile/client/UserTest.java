package example.userprofile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;

import java.util.Optional;
import org.junit.jupiter.api.Test;

/** Users as values. */
class UserTest {

  @Test
  void anEmptyStringAndFalseAreValues() {
    User user = User.builder("johndoe").email("").disabled(false).build();
    assertEquals(Optional.of(""), user.email());
    assertEquals(Optional.of(false), user.disabled());
    assertEquals(Optional.empty(), user.fullName());
    assertEquals("User{username: \"johndoe\" email: \"\" disabled: false}", user.toString());
  }

  @Test
  void usersWithEqualFieldsAreEqual() {
    User one = User.builder("johndoe").fullName("John Doe").build();
    User same = User.builder("johndoe").fullName("John Doe").build();
    assertEquals(one, same);
    assertEquals(one.hashCode(), same.hashCode());
    assertNotEquals(one, User.builder("johndoe").build());
  }
}
