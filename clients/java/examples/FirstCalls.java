import example.userprofile.client.Failure;
import example.userprofile.client.RequestOptions;
import example.userprofile.client.User;
import example.userprofile.client.UserProfileClient;
import io.grpc.InsecureChannelCredentials;
import java.util.List;
import java.util.Optional;

public final class FirstCalls {

  private FirstCalls() {}

  public static void main(String[] arguments) {
    String target = System.getenv().getOrDefault("USERPROFILE_TARGET", "localhost:50051");
    var builder = UserProfileClient.builder(target, InsecureChannelCredentials.create());
    Optional.ofNullable(System.getenv("USERPROFILE_TOKEN")).ifPresent(builder::token);
    try (var client = builder.build()) {
      User user = client.getUser("johndoe"); // or throws UserProfileException
      System.out.println(user.fullName().orElse("nameless"));

      System.out.println(client.findUser("nobody").isPresent());

      var emails = RequestOptions.DEFAULT.withFields("email");
      var results = client.getUsers(List.of("johndoe", "nobody"), emails); // any number
      results.forEach(
          (username, result) -> {
            if (result instanceof User found) {
              System.out.println(username + ": " + found.email().orElse("no e-mail"));
            } else if (result instanceof Failure failure) {
              System.out.println(username + ": " + failure.code());
            }
          });
    }
  }
}
