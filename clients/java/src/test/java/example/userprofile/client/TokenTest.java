package example.userprofile.client;

import static example.userprofile.client.Environment.assertSays;
import static example.userprofile.client.Environment.assertSaysNothingOf;
import static example.userprofile.client.Environment.plaintext;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import io.grpc.TlsServerCredentials;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Where a bearer token goes, and where it doesn't. */
class TokenTest {

  private static final String TOKEN = "abc.DEF-123_~+/==";

  @Test
  void theTokenGoesOverTls(@TempDir Path directory) throws Exception {
    var ca = new TestCa(directory);
    var identity = ca.issue("server");
    var theirs = TlsServerCredentials.create(identity.certificate(), identity.key());
    var ours = TlsChannelCredentials.newBuilder().trustManager(ca.certificate()).build();
    try (var server = new TestServer(theirs, TestServer::found);
        var client = Environment.builder(server.target(), ours).token(TOKEN).build()) {
      client.getUser("johndoe");

      assertEquals("Bearer " + TOKEN, authorization(server));
    }
  }

  @Test
  void theTokenGoesOverPlaintextOnThisMachine() throws Exception {
    try (var server = new TestServer(TestServer::found);
        var client = plaintext(server.target()).token(TOKEN).build()) {
      client.getUser("johndoe");

      assertEquals("Bearer " + TOKEN, authorization(server));
    }
  }

  @Test
  void withoutATokenNothingIsSent() throws Exception {
    try (var server = new TestServer(TestServer::found);
        var client = plaintext(server.target()).build()) {
      client.getUser("johndoe");

      assertNull(authorization(server));
    }
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "localhost",
        "LocalHost:50051",
        "dns:///localhost:50051",
        "127.0.0.1:50051",
        "127.255.0.9",
        "[::1]:50051",
        "unix:/run/userprofile.sock",
        "unix:///run/userprofile.sock"
      })
  void thisMachineNeedsNoTls(String target) {
    assertTrue(BearerToken.staysOnThisMachine(target));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "users.example.com:50051",
        "dns:///users.example.com",
        "dns://127.0.0.1/users.example.com:50051",
        "192.0.2.1:50051",
        "0.0.0.0:50051",
        "[2001:db8::1]:50051",
        "127.0.0.1.example.com:50051",
        "127.0.0.256:50051",
        "localhost.example.com:50051",
        "localhost@example.com:50051",
        "unix:50051"
      })
  void otherMachinesNeedTls(String target) {
    var builder = plaintext(target).token(TOKEN);

    var error = assertThrows(IllegalArgumentException.class, builder::build);
    assertSays("in plaintext", error);
    assertSaysNothingOf(TOKEN, error);
  }

  @Test
  void plaintextCanBeAllowed() {
    plaintext("192.0.2.1:50051").token(TOKEN).allowTokenOverPlaintext().build().close();
  }

  @ParameterizedTest
  @ValueSource(strings = {"", " ", "Bearer abc", "abc\n", "abc\r\nx-admin: yes", "ä", "=abc"})
  void aMalformedTokenIsRefused(String token) {
    var builder = plaintext("localhost");

    var error = assertThrows(IllegalArgumentException.class, () -> builder.token(token));
    assertSays("the token must", error);
  }

  private static String authorization(TestServer server) {
    var key = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    assertEquals(1, server.calls.size(), "calls");
    return server.calls.get(0).get(key);
  }
}
