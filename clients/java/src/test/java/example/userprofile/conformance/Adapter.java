package example.userprofile.conformance;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParseException;
import com.google.gson.JsonParser;
import example.userprofile.client.Failure;
import example.userprofile.client.RequestOptions;
import example.userprofile.client.User;
import example.userprofile.client.UserProfileClient;
import example.userprofile.client.UserProfileException;
import example.userprofile.client.UserResult;
import io.grpc.InsecureChannelCredentials;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Set;

/**
 * Makes calls for the conformance runner: {@code clients/java/conformance HOST:PORT}. It reads one
 * request per line and writes one response per line, both JSON. Each error's text goes to stderr.
 */
public final class Adapter {

  private Adapter() {}

  public static void main(String[] arguments) throws IOException {
    var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    var stdout = new FileOutputStream(FileDescriptor.out);
    var out = new PrintStream(stdout, true, StandardCharsets.UTF_8);
    var plaintext = InsecureChannelCredentials.create();
    var builder = UserProfileClient.builder(arguments[0], plaintext);
    String token = System.getenv("USERPROFILE_TOKEN");
    if (token != null) {
      builder.token(token);
    }
    try (var client = builder.build()) {
      for (String line = in.readLine(); line != null; line = in.readLine()) {
        out.println(respond(client, JsonParser.parseString(line).getAsJsonObject()));
      }
    } catch (IllegalArgumentException | IllegalStateException | JsonParseException error) {
      System.err.println("not a request: " + error.getMessage());
      System.exit(2);
    }
  }

  private static JsonObject respond(UserProfileClient client, JsonObject request) {
    checkKeys(request, Set.of("get_user", "get_users"));
    try {
      if (request.has("get_user")) {
        var given = request.getAsJsonObject("get_user");
        checkKeys(given, Set.of("username", "fields", "timeout_ms"));
        return toJson(client.getUser(given.get("username").getAsString(), options(given)));
      }
      var given = request.getAsJsonObject("get_users");
      checkKeys(given, Set.of("usernames", "fields", "timeout_ms"));
      var usernames = strings(given.getAsJsonArray("usernames"));
      var found = client.getUsers(usernames, options(given));
      var results = new JsonArray();
      for (String username : usernames) {
        JsonObject result = toJson(found.get(username));
        result.addProperty("username", username);
        results.add(result);
      }
      var response = new JsonObject();
      response.add("results", results);
      return response;
    } catch (UserProfileException error) {
      System.err.println(error.failure());
      return toJson(error.failure());
    }
  }

  private static RequestOptions options(JsonObject given) {
    var options = RequestOptions.DEFAULT;
    if (given.has("fields")) {
      options = options.withFields(strings(given.getAsJsonArray("fields")));
    }
    if (given.has("timeout_ms")) {
      options = options.withTimeout(Duration.ofMillis(given.get("timeout_ms").getAsLong()));
    }
    return options;
  }

  private static JsonObject toJson(UserResult result) {
    var fields = new JsonObject();
    var response = new JsonObject();
    if (result instanceof User user) {
      fields.addProperty("username", user.username());
      user.email().ifPresent(it -> fields.addProperty("email", it));
      user.fullName().ifPresent(it -> fields.addProperty("full_name", it));
      user.disabled().ifPresent(it -> fields.addProperty("disabled", it));
      response.add("user", fields);
    } else if (result instanceof Failure failure) {
      fields.addProperty("code", failure.code().name());
      failure.reason().ifPresent(it -> fields.addProperty("reason", it));
      failure.violations().forEach(it -> fields.addProperty("field", it.field()));
      if (failure.retryable()) {
        fields.addProperty("retryable", true);
      }
      response.add("error", fields);
    }
    return response;
  }

  private static List<String> strings(JsonArray values) {
    return values.asList().stream().map(JsonElement::getAsString).toList();
  }

  private static void checkKeys(JsonObject given, Set<String> known) {
    if (!known.containsAll(given.keySet())) {
      throw new IllegalArgumentException("unknown keys in " + given.keySet());
    }
  }
}
