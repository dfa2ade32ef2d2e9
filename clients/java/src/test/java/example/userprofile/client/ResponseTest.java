package example.userprofile.client;

import static java.util.Map.entry;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.params.provider.Arguments.argumentSet;
import static example.userprofile.client.Environment.plaintext;

import com.google.protobuf.Any;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RequestInfo;
import example.userprofile.v1.BatchGetUsersResponse;
import example.userprofile.v1.GetUserResponse;
import example.userprofile.v1.UserProfileServiceGrpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.MethodDescriptor;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status.Code;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ServerCalls;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Invalid responses, which our server never sends. */
class ResponseTest {

  private static final RequestOptions KNOWN =
      RequestOptions.DEFAULT.withRequestId("the-request-id");

  private static final Failure UNREADABLE =
      failure(Code.UNKNOWN, "The client can't read the server's response.");

  private static final MethodDescriptor.Marshaller<byte[]> BYTES =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] value) {
          return new ByteArrayInputStream(value);
        }

        @Override
        public byte[] parse(InputStream stream) {
          try {
            return stream.readAllBytes();
          } catch (IOException error) {
            throw new UncheckedIOException(error);
          }
        }
      };

  static Stream<Arguments> anotherUserIsAnError() {
    var other = example.userprofile.v1.User.newBuilder().setUsername("JohnDoe");
    return Stream.of(
        argumentSet("nobody", GetUserResponse.getDefaultInstance()),
        argumentSet("somebody else", GetUserResponse.newBuilder().setUser(other).build()));
  }

  @ParameterizedTest
  @MethodSource
  void anotherUserIsAnError(GetUserResponse response) throws IOException {
    TestServer.Handler handler =
        (request, observer) -> {
          observer.onNext(response);
          observer.onCompleted();
        };
    try (var server = new TestServer(handler);
        var client = plaintext(server.target()).build()) {
      var error = assertThrows(UserProfileException.class, () -> client.getUser("johndoe", KNOWN));
      assertEquals(UNREADABLE, error.failure());
    }
  }

  @Test
  void bytesThatAreNoMessageAreAnError() throws IOException {
    var method = UserProfileServiceGrpc.getGetUserMethod().toBuilder(BYTES, BYTES).build();
    var garbage =
        ServerServiceDefinition.builder(UserProfileServiceGrpc.SERVICE_NAME)
            .addMethod(
                method,
                ServerCalls.asyncUnaryCall(
                    (request, observer) -> {
                      observer.onNext(new byte[] {'\n'});
                      observer.onCompleted();
                    }))
            .build();
    var server =
        NettyServerBuilder.forAddress(
                new InetSocketAddress(InetAddress.getLoopbackAddress(), 0),
                InsecureServerCredentials.create())
            .addService(garbage)
            .build()
            .start();
    try (var client = plaintext("127.0.0.1:" + server.getPort()).build()) {
      var error = assertThrows(UserProfileException.class, () -> client.getUser("johndoe", KNOWN));
      assertEquals(UNREADABLE, error.failure());
    } finally {
      server.shutdownNow();
    }
  }

  @Test
  void invalidResultsOfABatchFailTheirUsernamesAlone() throws IOException {
    var results =
        List.of(
            // Results are found by their usernames, not by their places.
            failed("f", Code.DATA_LOSS.value()),
            found("not requested"),
            found("somebody else").toBuilder().setUsername("b").build(),
            BatchGetUsersResponse.Result.newBuilder().setUsername("c").build(),
            failed("d", Code.OK.value()),
            failed("e", 99),
            found("johndoe"));
    try (var server = new TestServer(results);
        var client = plaintext(server.target()).build()) {
      assertEquals(
          List.of(
              entry("johndoe", User.from(found("johndoe").getUser())),
              entry("b", UNREADABLE),
              entry("c", UNREADABLE),
              entry("missing", UNREADABLE),
              entry("d", failure(Code.UNKNOWN, "as the test wants")),
              entry("e", failure(Code.UNKNOWN, "as the test wants")),
              entry("f", failure(Code.DATA_LOSS, "as the test wants"))),
          List.copyOf(
              client
                  .getUsers(List.of("johndoe", "b", "c", "missing", "d", "e", "f"), KNOWN)
                  .entrySet()));
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
    var result =
        BatchGetUsersResponse.Result.newBuilder().setUsername("johndoe").setError(status).build();
    try (var server = new TestServer(List.of(result));
        var client = plaintext(server.target()).build()) {
      var failure =
          assertInstanceOf(
              Failure.class, client.getUsers(List.of("johndoe")).get("johndoe"));
      var message = failure.message();
      assertTrue(message.startsWith("\\u{1b}[31mred\\u{d}\\u{a}\\u{202e}gpj.\\u{2028}xx"), message);
      assertTrue(message.endsWith("xx… (1016 more characters)"), message);
      assertEquals(Optional.empty(), failure.reason());
      assertTrue(failure.toString().chars().noneMatch(it -> it < ' ' || it == 0x202e));
    }
  }

  @Test
  void noFieldsAreTheUsernameAndNotAll() throws IOException {
    try (var server = new TestServer(List.of());
        var client = plaintext(server.target()).build()) {
      client.getUser("johndoe");
      client.findUser("johndoe", RequestOptions.DEFAULT.withFields());
      client.getUsers(
          List.of("johndoe"), RequestOptions.DEFAULT.withFields("email", "full_name", "email"));
      assertEquals(
          List.of(List.of(), List.of("username"), List.of("username", "email", "full_name")),
          server.readMasks.stream().map(it -> List.copyOf(it.getPathsList())).toList());
    }
  }

  private static Failure failure(Code code, String message) {
    return Failure.builder(code, message).requestId("the-request-id").build();
  }

  private static BatchGetUsersResponse.Result found(String username) {
    var user = example.userprofile.v1.User.newBuilder().setUsername(username);
    return BatchGetUsersResponse.Result.newBuilder().setUsername(username).setUser(user).build();
  }

  private static BatchGetUsersResponse.Result failed(String username, int code) {
    var status = com.google.rpc.Status.newBuilder().setCode(code).setMessage("as the test wants");
    return BatchGetUsersResponse.Result.newBuilder().setUsername(username).setError(status).build();
  }
}
