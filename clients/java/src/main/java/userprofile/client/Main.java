package userprofile.client;

import io.grpc.InsecureChannelCredentials;
import java.io.PrintStream;
import java.time.Duration;
import java.util.Optional;

/**
 * The command {@code get USERNAME}: prints a user from the service at {@code USERPROFILE_TARGET}.
 * Sends the token in {@code USERPROFILE_TOKEN}, if set.
 */
public final class Main {

  private static final String DEFAULT_TARGET = "localhost:50051";

  private Main() {}

  /**
   * Runs the command and exits: with 0 if it found the user, 2 for a usage error, 3 if there is
   * no such user and 1 for any other error.
   *
   * @param arguments {@code get} and a username
   */
  public static void main(String[] arguments) {
    String target = System.getenv().getOrDefault("USERPROFILE_TARGET", DEFAULT_TARGET);
    System.exit(run(target, Duration.ofSeconds(5), arguments, System.out, System.err));
  }

  static int run(
      String target, Duration timeout, String[] arguments, PrintStream out, PrintStream err) {
    if (arguments.length != 2 || !arguments[0].equals("get")) {
      err.println("usage: get USERNAME");
      return 2;
    }
    var builder =
        UserProfileClient.builder(target, InsecureChannelCredentials.create())
            .timeout(timeout)
            .failFast(); // people should see soon that the service is down
    try {
      Optional.ofNullable(System.getenv("USERPROFILE_TOKEN"))
          .filter(token -> !token.isEmpty())
          .ifPresent(builder::token);
    } catch (IllegalArgumentException error) {
      err.println("error: USERPROFILE_TOKEN: " + error.getMessage());
      return 2;
    }
    try (var client = builder.build()) {
      Optional<User> user = client.findUser(arguments[1]);
      if (user.isEmpty()) {
        err.println("error: there is no such user");
        return 3;
      }
      print(user.get(), out);
      return 0;
    } catch (IllegalArgumentException | UserProfileException error) {
      err.println("error: %s (target %s)".formatted(error.getMessage(), target));
      return 1;
    }
  }

  private static void print(User user, PrintStream out) {
    out.println("username   " + printable(user.username()));
    out.println("email      " + user.email().map(Main::printable).orElse("-"));
    out.println("full name  " + user.fullName().map(Main::printable).orElse("-"));
    out.println("disabled   " + user.disabled().map(it -> it ? "yes" : "no").orElse("-"));
  }

  /** Text from profiles could contain terminal escapes. */
  private static String printable(String text) {
    return text.replaceAll("[\\p{Cntrl}\\p{Cf}]", "?");
  }
}
