package example.userprofile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The examples work, and the README shows them. */
class ReadmeTest {

  @Test
  void theFirstCallsPrintWhatTheReadmeSays() throws Exception {
    assertReadmeHas("text", run("FirstCalls"));
  }

  @Test
  void theObservedCallIsMade() throws Exception {
    assertEquals("John Doe\n", run("Observed"));
  }

  @ParameterizedTest
  @ValueSource(strings = {"FirstCalls", "Observed"})
  void theReadmeShowsTheExamples(String name) throws IOException {
    assertReadmeHas("java", Files.readString(Path.of("examples", name + ".java")));
  }

  private static void assertReadmeHas(String language, String block) throws IOException {
    assertTrue(
        Files.readString(Path.of("README.md")).contains("```%s\n%s```".formatted(language, block)),
        () -> "README.md does not show this:\n" + block);
  }

  private static String run(String example) throws Exception {
    Environment.target(); // which the examples take from the environment too
    var seen = new ByteArrayOutputStream();
    PrintStream out = System.out;
    System.setOut(new PrintStream(seen, true, StandardCharsets.UTF_8));
    try {
      // By its name: what is in no package can't be imported.
      Class.forName(example)
          .getMethod("main", String[].class)
          .invoke(null, (Object) new String[0]);
    } finally {
      System.setOut(out);
    }
    return seen.toString(StandardCharsets.UTF_8).replace("\r\n", "\n");
  }
}
