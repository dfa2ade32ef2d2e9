package userprofile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.ChannelCredentials;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ServerCredentials;
import io.grpc.Status;
import io.grpc.TlsChannelCredentials;
import io.grpc.TlsServerCredentials;
import io.grpc.TlsServerCredentials.ClientAuth;
import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** TLS with an own CA, and with client certificates. */
class TlsTest {

  @TempDir static Path directory;
  static TestCa ca;
  static TestCa otherCa;
  static TestCa.Identity server;
  static TestCa.Identity client;

  @BeforeAll
  static void makeCertificates() throws Exception {
    ca = new TestCa(directory.resolve("ca"));
    otherCa = new TestCa(directory.resolve("other"));
    server = ca.issue("server");
    client = ca.issue("client");
  }

  @Test
  void anOwnCaIsTrusted() throws Exception {
    var tls = TlsChannelCredentials.newBuilder().trustManager(ca.certificate()).build();

    assertFound(tls, serverTls().build());
  }

  @Test
  void anotherCaIsNotTrusted() throws Exception {
    var tls = TlsChannelCredentials.newBuilder().trustManager(otherCa.certificate()).build();

    assertRefused(tls, serverTls().build());
  }

  @Test
  void anOwnCaIsNotTrustedByDefault() throws Exception {
    assertRefused(TlsChannelCredentials.create(), serverTls().build());
  }

  @Test
  void plaintextDoesNotReachATlsServer() throws Exception {
    assertRefused(InsecureChannelCredentials.create(), serverTls().build());
  }

  @Test
  void aClientCertificateIsShown() throws Exception {
    var tls =
        TlsChannelCredentials.newBuilder()
            .trustManager(ca.certificate())
            .keyManager(client.certificate(), client.key())
            .build();

    assertFound(tls, mutualTls());
  }

  @Test
  void withoutAClientCertificateMutualTlsFails() throws Exception {
    var tls = TlsChannelCredentials.newBuilder().trustManager(ca.certificate()).build();

    assertRefused(tls, mutualTls());
  }

  @Test
  void aClientCertificateOfAnotherCaIsRefused() throws Exception {
    var stranger = otherCa.issue("stranger");
    var tls =
        TlsChannelCredentials.newBuilder()
            .trustManager(ca.certificate())
            .keyManager(stranger.certificate(), stranger.key())
            .build();

    assertRefused(tls, mutualTls());
  }

  private static TlsServerCredentials.Builder serverTls() throws IOException {
    return TlsServerCredentials.newBuilder().keyManager(server.certificate(), server.key());
  }

  private static ServerCredentials mutualTls() throws IOException {
    return serverTls().trustManager(ca.certificate()).clientAuth(ClientAuth.REQUIRE).build();
  }

  private static void assertFound(ChannelCredentials ours, ServerCredentials theirs)
      throws IOException {
    try (var server = new TestServer(theirs, TestServer::found);
        var client = Environment.builder(server.target(), ours).build()) {
      assertEquals("johndoe", client.getUser("johndoe").username());
    }
  }

  private static void assertRefused(ChannelCredentials ours, ServerCredentials theirs)
      throws IOException {
    try (var server = new TestServer(theirs, TestServer::found);
        var client = Environment.builder(server.target(), ours).build()) {
      var error = assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
      assertEquals(Status.Code.UNAVAILABLE, error.failure().code());
      assertTrue(server.calls.isEmpty(), "the call reached the server");
    }
  }
}
