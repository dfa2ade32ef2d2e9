package userprofile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.params.provider.Arguments.argumentSet;
import static userprofile.client.Environment.plaintext;

import com.google.protobuf.Any;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import io.grpc.Status.Code;
import java.io.IOException;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;
import userprofile.v1.UserProfile;
import userprofile.v1.UserProfile.GetUserResponse;

/** Answers that a server of ours never gives. */
class AnswerTest {

  private static final Failure NOT_UNDERSTOOD =
      failure(
          Code.UNKNOWN, "The server's answer is one that this client doesn't understand.");

  static Stream<Arguments> noOtherUserPassesForTheOneAskedFor() {
    var other = UserProfile.User.newBuilder().setUsername("JohnDoe");
    return Stream.of(
        argumentSet("nobody", GetUserResponse.getDefaultInstance()),
        argumentSet("somebody else", GetUserResponse.newBuilder().setUser(other).build()));
  }

  @ParameterizedTest
  @MethodSource
  void noOtherUserPassesForTheOneAskedFor(GetUserResponse response) throws IOException {
    TestServer.Answer answer =
        (request, observer) -> {
          observer.onNext(response);
          observer.onCompleted();
        };
    try (var server = new TestServer(answer);
        var client = plaintext(server.target()).build()) {
      var error = assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
      assertEquals(NOT_UNDERSTOOD, error.failure());
    }
  }

  @Test
  void strangeResultsOfABatchAreFailuresOfTheirNamesAlone() throws IOException {
    var results =
        List.of(
            found("johndoe"),
            found("somebody else"),
            UserProfile.UserResult.getDefaultInstance(),
            failed(Code.OK.value()),
            failed(99),
            failed(Code.DATA_LOSS.value()));
    try (var server = new TestServer(results);
        var client = plaintext(server.target()).build()) {
      assertEquals(
          List.of(
              new User("johndoe", Optional.empty(), Optional.empty(), Optional.empty()),
              NOT_UNDERSTOOD,
              NOT_UNDERSTOOD,
              failure(Code.UNKNOWN, "as the test wants"),
              failure(Code.UNKNOWN, "as the test wants"),
              failure(Code.DATA_LOSS, "as the test wants")),
          client.batchGetUsers(List.of("johndoe", "b", "c", "d", "e", "f")));
    }
  }

  @Test
  void textCannotSteerATerminalAndIsKeptShort() throws IOException {
    String evil = "\033[31mred\r\n\u202egpj.\u2028";
    var violation =
        BadRequest.FieldViolation.newBuilder().setField(evil).setDescription(evil).build();
    var status =
        com.google.rpc.Status.newBuilder()
            .setCode(Code.INTERNAL.value())
            .setMessage(evil + "x".repeat(2000))
            .addDetails(
                Any.pack(
                    ErrorInfo.newBuilder().setDomain("userprofile").setReason(evil).build()))
            .addDetails(Any.pack(RequestInfo.newBuilder().setRequestId(evil).build()))
            .addDetails(Any.pack(BadRequest.newBuilder().addFieldViolations(violation).build()));
    var result = UserProfile.UserResult.newBuilder().setError(status).build();
    try (var server = new TestServer(List.of(result));
        var client = plaintext(server.target()).build()) {
      var failure = (Failure) client.batchGetUsers(List.of("johndoe")).get(0);
      var message = failure.message();
      assertTrue(message.startsWith("\\u{1b}[31mred\\u{d}\\u{a}\\u{202e}gpj.\\u{2028}xx"), message);
      assertTrue(message.endsWith("xx… (1016 more characters)"), message);
      assertEquals(Optional.empty(), failure.reason());
      assertTrue(failure.toString().chars().noneMatch(it -> it < ' ' || it == 0x202e));
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 3})
  void aWrongNumberOfResultsFailsTheBatch(int count) throws IOException {
    var results = Stream.of("a", "b", "c").limit(count).map(AnswerTest::found).toList();
    try (var server = new TestServer(results);
        var client = plaintext(server.target()).build()) {
      var error =
          assertThrows(
              UserProfileException.class, () -> client.batchGetUsers(List.of("a", "b")));
      assertEquals(NOT_UNDERSTOOD, error.failure());
    }
  }

  private static Failure failure(Code code, String message) {
    return new Failure(
        code, message, Optional.empty(), List.of(), Optional.of("the request id"));
  }

  private static UserProfile.UserResult found(String username) {
    var user = UserProfile.User.newBuilder().setUsername(username);
    return UserProfile.UserResult.newBuilder().setUser(user).build();
  }

  private static UserProfile.UserResult failed(int code) {
    var status = com.google.rpc.Status.newBuilder().setCode(code).setMessage("as the test wants");
    return UserProfile.UserResult.newBuilder().setError(status).build();
  }
}
