package userprofile.client;

import io.grpc.ChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import java.nio.file.Path;
import java.time.Duration;

/** What the tests need from outside: the real server, and the table of expected behaviour. */
final class Environment {

  /** The timeout of calls whose time is not what is tested: right on the slowest machine. */
  static final Duration PATIENCE = Duration.ofMinutes(1);

  private Environment() {}

  static String target() {
    return variable(
        "USERPROFILE_TARGET",
        "the address of a server that python -m tests.client_conformance runs");
  }

  static Path conformanceTable() {
    return Path.of(
        variable(
            "USERPROFILE_CONFORMANCE_TABLE", "the path of tests/client_conformance/table.json"));
  }

  static Path identities() {
    return Path.of(
        variable(
            "USERPROFILE_IDENTITIES",
            "the folder of a server that tests.client_conformance.identities runs"));
  }

  static UserProfileClient.Builder builder(String target, ChannelCredentials credentials) {
    return UserProfileClient.builder(target, credentials).timeout(PATIENCE);
  }

  static UserProfileClient.Builder plaintext(String target) {
    return builder(target, InsecureChannelCredentials.create());
  }

  private static String variable(String name, String meaning) {
    String value = System.getenv(name);
    if (value == null || value.isEmpty()) {
      throw new IllegalStateException("%s must be set to %s".formatted(name, meaning));
    }
    return value;
  }
}
