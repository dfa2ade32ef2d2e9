package userprofile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.params.provider.Arguments.argumentSet;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.function.Function;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** The cases that the clients of all languages run against the real server. */
class ConformanceTest {

  private static final ObjectMapper JSON = new ObjectMapper();

  @BeforeAll
  static void needsTheServerAndTheTable() {
    Environment.target();
    Environment.conformanceTable();
  }

  @Test
  void theTableHasOnlyMethodsThatAreTestedHere() throws IOException {
    var table = (ObjectNode) JSON.readTree(Environment.conformanceTable().toFile());
    var others = table.without(List.of("get_user", "batch_get_users"));
    assertTrue(others.isEmpty(), others::toString);
  }

  static Stream<Arguments> getUser() throws IOException {
    return cases("get_user");
  }

  static Stream<Arguments> batchGetUsers() throws IOException {
    return cases("batch_get_users");
  }

  private static Stream<Arguments> cases(String method) throws IOException {
    JsonNode cases = JSON.readTree(Environment.conformanceTable().toFile()).required(method);
    assertFalse(cases.isEmpty(), "the table has no cases of " + method);
    return cases.valueStream().map(it -> argumentSet(it.required("case").textValue(), it));
  }

  @ParameterizedTest
  @MethodSource
  void getUser(JsonNode given) {
    String username = given.required("username").textValue();
    check(
        given,
        client ->
            toJson(
                fields(given)
                    .map(it -> client.getUser(username, it))
                    .orElseGet(() -> client.getUser(username))));
  }

  @ParameterizedTest
  @MethodSource
  void batchGetUsers(JsonNode given) {
    List<String> usernames =
        given.required("usernames").valueStream().map(JsonNode::textValue).toList();
    check(
        given,
        client -> {
          ObjectNode seen = JSON.createObjectNode();
          ArrayNode results = seen.putArray("results");
          var found =
              fields(given)
                  .map(it -> client.batchGetUsers(usernames, it))
                  .orElseGet(() -> client.batchGetUsers(usernames));
          for (String username : usernames) {
            ObjectNode named = JSON.createObjectNode().put("username", username);
            results.add(named.setAll(toJson(found.get(username))));
          }
          return seen;
        });
  }

  private static Optional<List<String>> fields(JsonNode given) {
    return Optional.ofNullable(given.get("fields"))
        .map(it -> it.valueStream().map(JsonNode::textValue).toList());
  }

  /** Makes one call and compares, in the terms of the table, what is seen with what is expected. */
  private static void check(JsonNode given, Function<UserProfileClient, ObjectNode> call) {
    ObjectNode expected = ((ObjectNode) given).deepCopy();
    expected.remove(List.of("case", "username", "usernames", "fields", "timeout"));
    long millis = (long) (given.path("timeout").asDouble(10) * 1000);
    ObjectNode seen;
    var builder = Environment.plaintext(Environment.target()).timeout(Duration.ofMillis(millis));
    try (var client = builder.build()) {
      seen = call.apply(client);
    } catch (UserProfileException error) {
      Failure failure = error.failure();
      seen = toJson(failure);
      if (failure.reason().isPresent()) {
        assertFalse(failure.requestId().orElse("").isEmpty(), "no request id: " + failure);
      }
      if (!expected.path("error").has("reason")) {
        ((ObjectNode) seen.get("error")).remove(List.of("reason", "retryable"));
      }
    }
    assertEquals(expected, seen, "case: " + given.get("case").textValue());
  }

  private static ObjectNode toJson(UserResult result) {
    ObjectNode json = JSON.createObjectNode();
    if (result instanceof User user) {
      ObjectNode fields = json.putObject("user");
      fields.put("username", user.username());
      user.email().ifPresent(it -> fields.put("email", it));
      user.fullName().ifPresent(it -> fields.put("full_name", it));
      user.disabled().ifPresent(it -> fields.put("disabled", it));
    } else if (result instanceof Failure failure) {
      ObjectNode fields = json.putObject("error");
      fields.put("code", failure.code().name());
      failure.reason().ifPresent(it -> fields.put("reason", it));
      if (failure.retryable()) {
        fields.put("retryable", true);
      }
      failure.violations().forEach(it -> fields.put("field", it.field()));
    }
    return json;
  }
}
