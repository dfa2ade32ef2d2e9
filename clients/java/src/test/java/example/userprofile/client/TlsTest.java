package example.userprofile.client;

import static example.userprofile.client.Environment.assertSays;
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
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
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

  @Test
  void badAuthoritiesAreNamed() throws Exception {
    String pem = Files.readString(ca.certificate().toPath());
    String damaged = pem.replaceFirst("\n[^\n]{64}", "\n" + "A".repeat(64));
    String old = Files.readString(ca.expired("old").certificate().toPath());
    for (var entry :
        Map.of(
                "", "is empty",
                " \r\n", "is empty",
                "garbage", "isn't PEM",
                damaged, "certificate 1 in",
                pem + damaged, "certificate 2 in",
                pem + pem.substring(0, 200), "is damaged",
                "\ufeff" + pem, "is damaged",
                Files.readString(client.key().toPath()), "not a certificate",
                Files.readString(client.certificate().toPath()), "issued by an authority",
                old, "expired at")
            .entrySet()) {
      var tls = TlsChannelCredentials.newBuilder().trustManager(stream(entry.getKey())).build();
      assertNotBuilt(tls, entry.getValue());
    }
    var tls = TlsChannelCredentials.newBuilder().trustManager(stream(old + pem)).build();
    assertFound(tls, serverTls().build());
  }

  @Test
  void aBadClientCertificateOrKeyIsNamed() throws Exception {
    String key = Files.readString(client.key().toPath());
    String encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    String older =
        key.replace("PRIVATE KEY-----\n", "EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n")
            .replace("END PRIVATE", "END EC PRIVATE");
    for (var entry :
        Map.of(
                "", "is empty",
                "garbage", "isn't PEM",
                encrypted, "is encrypted",
                older, "is encrypted",
                key.replace(" PRIVATE", " EC PRIVATE"), "must be PKCS#8",
                key.replaceFirst("\n[^\n]{64}", "\n" + "A".repeat(64)), "is damaged",
                Files.readString(client.certificate().toPath()), "not a private key",
                Files.readString(server.key().toPath()), "doesn't belong")
            .entrySet()) {
      var tls =
          TlsChannelCredentials.newBuilder()
              .keyManager(
                  stream(Files.readString(client.certificate().toPath())), stream(entry.getKey()))
              .build();
      assertNotBuilt(tls, entry.getValue());
    }
    var old = ca.expired("old client");
    assertNotBuilt(
        TlsChannelCredentials.newBuilder().keyManager(old.certificate(), old.key()).build(),
        "expired at");
    var theirs = ca.issueFor("serverAuth");
    assertNotBuilt(
        TlsChannelCredentials.newBuilder().keyManager(theirs.certificate(), theirs.key()).build(),
        "lacks clientAuth");
    var ours = ca.issueFor("clientAuth");
    var tls = TlsChannelCredentials.newBuilder().keyManager(ours.certificate(), ours.key()).build();
    Environment.builder("localhost:1", tls).build().close();
  }

  private static InputStream stream(String content) {
    return new ByteArrayInputStream(content.getBytes(StandardCharsets.UTF_8));
  }

  private static void assertNotBuilt(ChannelCredentials tls, String says) {
    var builder = Environment.builder("localhost:1", tls);
    var error = assertThrows(IllegalArgumentException.class, builder::build);
    assertSays(says, error);
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
        var client = Environment.builder(server.target(), ours).waitForReady(false).build()) {
      var error = assertThrows(UserProfileException.class, () -> client.getUser("johndoe"));
      assertEquals(Status.Code.UNAVAILABLE, error.failure().code());
      assertTrue(server.calls.isEmpty(), "the call reached the server");
    }
  }
}
