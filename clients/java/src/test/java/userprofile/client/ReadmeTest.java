package userprofile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.ChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;

/** The README's snippet stands here, and works. */
class ReadmeTest {

  @Test
  void theSnippetWorks() {
    var seen = new ByteArrayOutputStream();
    snippet(
        Environment.target(),
        InsecureChannelCredentials.create(),
        new PrintStream(seen, true, StandardCharsets.UTF_8));
    assertEquals(
        List.of(
            "John Doe",
            "johndoe is known, and disabled: Optional[false]",
            "NOT_FOUND (USER_NOT_FOUND): There is no such user."),
        seen.toString(StandardCharsets.UTF_8)
            .replaceAll(" \\[request id \\w+]", "")
            .lines()
            .toList());
  }

  @Test
  void theReadmeShowsTheSnippet() throws IOException {
    String source = Files.readString(Path.of("src/test/java/userprofile/client/ReadmeTest.java"));
    String snippet = source.split("// (begin|end) of the snippet\n")[1].stripIndent().strip();
    assertTrue(
        Files.readString(Path.of("README.md")).contains("```java\n" + snippet + "\n```"),
        () -> "README.md does not show this:\n" + snippet);
  }

  private static void snippet(String target, ChannelCredentials credentials, PrintStream out) {
    // begin of the snippet
    try (var client = UserProfileClient.builder(target, credentials).build()) {
      Optional<User> found = client.findUser("johndoe");
      out.println(found.flatMap(User::fullName).orElse("nobody, or nameless"));

      var results = client.batchGetUsers(List.of("johndoe", "nobody"), List.of("disabled"));
      for (var entry : results.entrySet()) {
        if (entry.getValue() instanceof User user) {
          out.println(entry.getKey() + " is known, and disabled: " + user.disabled());
        } else if (entry.getValue() instanceof Failure failure) {
          out.println(failure);
        }
      }
    }
    // end of the snippet
  }
}
