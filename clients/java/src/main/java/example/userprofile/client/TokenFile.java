package example.userprofile.client;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.time.Instant;
import java.util.function.Supplier;

/** A token in a file that is renewed there. */
final class TokenFile implements Supplier<String> {

  /** More than metadata can carry. */
  private static final int MAX_BYTES = 64 * 1024;

  /** What shows that the file has changed. */
  private record Look(Object key, long size, FileTime modified) {}

  private record Token(String value, Look look, long lookedAt) {}

  private final Path path;
  private final Duration interval;
  private volatile Token last;

  /**
   * Reads the token.
   *
   * @param interval how often the file is looked at, at most, and for how long it must have been
   *     left alone before it is read again
   * @throws IllegalArgumentException if there is none; nothing of the file is in the message
   */
  TokenFile(Path path, Duration interval) {
    this.path = path;
    this.interval = interval;
    try {
      Look look = look(); // before reading: what is written meanwhile is a change
      last = new Token(read(), look, System.nanoTime());
    } catch (IOException error) {
      // The texts of these exceptions are mostly the path alone.
      throw new IllegalArgumentException("the token file can't be read: " + error, error);
    }
  }

  /** Returns the token in the file, or with the last one if there is none now. */
  @Override
  public String get() {
    Token token = last;
    long now = System.nanoTime();
    if (now - token.lookedAt < interval.toNanos()) {
      return token.value;
    }
    Token next = new Token(token.value, token.look, now);
    last = next; // for other threads, before reading
    try {
      if (Files.isRegularFile(path)) {
        Look look = look();
        if (!look.equals(token.look) && isSettled(look)) {
          next = new Token(read(), look, now);
          last = next;
        }
      }
    } catch (IOException | IllegalArgumentException error) {
      // The last one it is.
    }
    return next.value;
  }

  private Look look() throws IOException {
    var found = Files.readAttributes(path, BasicFileAttributes.class);
    return new Look(String.valueOf(found.fileKey()), found.size(), found.lastModifiedTime());
  }

  /** A file that was modified a moment ago may be half of what it is going to be. */
  private boolean isSettled(Look look) {
    Duration age = Duration.between(look.modified.toInstant(), Instant.now());
    return age.isNegative() || age.compareTo(interval) >= 0;
  }

  private String read() throws IOException {
    byte[] content;
    try (var file = Files.newInputStream(path)) {
      content = file.readNBytes(MAX_BYTES + 1);
    }
    if (content.length > MAX_BYTES) {
      throw new IllegalArgumentException(
          "%s is larger than any token (%d bytes)".formatted(path, MAX_BYTES));
    }
    String text;
    try {
      text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(content)).toString();
    } catch (CharacterCodingException error) {
      throw new IllegalArgumentException(path + " is not text in UTF-8");
    }
    try {
      // What editors, shells and secret stores put around a value.
      return BearerToken.checked(text.replaceAll("^[\\s\ufeff]+|[\\s\ufeff]+$", ""));
    } catch (IllegalArgumentException error) {
      throw new IllegalArgumentException("%s: %s".formatted(path, error.getMessage()));
    }
  }
}
