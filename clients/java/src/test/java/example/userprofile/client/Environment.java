package example.userprofile.client;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Metadata;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;

/** What the tests need from outside: the real servers. */
final class Environment {

  /** The timeout of calls whose time is not what is tested: right on the slowest machine. */
  static final Duration PATIENCE = Duration.ofMinutes(1);

  private Environment() {}

  static String target() {
    return variable(
        "USERPROFILE_TARGET",
        "the address of a server that python -m tests.client_conformance runs");
  }

  static Path identities() {
    return Path.of(
        variable(
            "USERPROFILE_IDENTITIES",
            "the folder of a server that tests.client_conformance.identities runs"));
  }

  static UserProfileClientBuilder builder(String target, ChannelCredentials credentials) {
    return UserProfileClient.builder(target, credentials).timeout(PATIENCE);
  }

  static UserProfileClientBuilder plaintext(String target) {
    return builder(target, InsecureChannelCredentials.create());
  }

  /** Returns what a call is made with, of a client that makes none. */
  static Call call(String requestId) {
    var channel =
        Grpc.newChannelBuilder("localhost:1", InsecureChannelCredentials.create()).build();
    channel.shutdownNow();
    var connection = new Connection(channel, channel);
    return new Call(
        new Connections(List.of(connection)),
        connection,
        "localhost:1",
        PATIENCE,
        false,
        requestId,
        new Metadata(),
        null);
  }

  static void assertSays(String text, Throwable error) {
    String message = String.valueOf(error.getMessage());
    assertTrue(message.contains(text), () -> "%s: %s".formatted(text, message));
  }

  static void assertSaysNothingOf(String text, Throwable error) {
    assertFalse(String.valueOf(error.getMessage()).contains(text), "a secret in a message");
  }

  private static String variable(String name, String meaning) {
    String value = System.getenv(name);
    if (value == null || value.isEmpty()) {
      throw new IllegalStateException("%s must be set to %s".formatted(name, meaning));
    }
    return value;
  }
}
