package userprofile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

/** The command, on the real server. */
class MainTest {

  private final ByteArrayOutputStream out = new ByteArrayOutputStream();
  private final ByteArrayOutputStream err = new ByteArrayOutputStream();

  @Test
  void showsAUser() {
    assertEquals(0, run(Environment.target(), "get", "johndoe"), err::toString);
    String seen = out.toString(StandardCharsets.UTF_8).replace("\r\n", "\n");
    String begins =
        """
        username   johndoe
        email      johndoe@example.com
        full name  John Doe
        disabled   no
        """;
    assertTrue(seen.startsWith(begins), seen);
  }

  @Test
  void whatIsUnsetIsADash() {
    assertEquals(0, run(Environment.target(), "get", "absent"), err::toString);
    assertTrue(out.toString(StandardCharsets.UTF_8).contains("disabled   -"), out::toString);
  }

  @Test
  void saysThatThereIsNoSuchUser() {
    assertEquals(3, run(Environment.target(), "get", "nobody"));
    assertEquals("error: there is no such user", err.toString(StandardCharsets.UTF_8).strip());
  }

  @Test
  void saysWhatFailed() {
    assertEquals(1, run(Environment.target(), "get", "corrupt"));
    assertTrue(
        err.toString(StandardCharsets.UTF_8).startsWith("error: DATA_LOSS (CORRUPT_DOCUMENT): "),
        err::toString);
  }

  @Test
  void wrongArgumentsGetTheUsage() {
    assertEquals(2, run("localhost:1", "get"));
    assertEquals("usage: get USERNAME", err.toString(StandardCharsets.UTF_8).strip());
  }

  private int run(String target, String... arguments) {
    return Main.run(
        target,
        Environment.PATIENCE,
        arguments,
        new PrintStream(out, true, StandardCharsets.UTF_8),
        new PrintStream(err, true, StandardCharsets.UTF_8));
  }
}
