package example.userprofile.client;

import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.Optional;

/** Checks what can be sent. Everything else about usernames is the server's to say. */
final class Usernames {

  /** A hundred usernames of this size fit into a request; the server accepts up to 233 bytes. */
  private static final int MAX_BYTES = 600;

  private Usernames() {}

  /** Returns the failure of a username that can't be sent. */
  static Optional<Failure> problem(String username) {
    try {
      // Protobuf would send a lone surrogate as a question mark: another username.
      var encoded = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(username));
      if (encoded.remaining() <= MAX_BYTES) {
        return Optional.empty();
      }
      return Optional.of(Failures.invalidUsername("must not be longer than 233 bytes in UTF-8"));
    } catch (CharacterCodingException unpairedSurrogate) {
      return Optional.of(Failures.invalidUsername("must be valid Unicode"));
    }
  }
}
