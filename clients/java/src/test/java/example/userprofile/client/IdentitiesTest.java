package example.userprofile.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.grpc.Status;
import io.grpc.TlsChannelCredentials;
import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import org.junit.jupiter.api.Test;

/** A real server that knows its callers; see tests/client_conformance/identities.py. */
class IdentitiesTest {

  private static final Path FOLDER = Environment.identities();

  @Test
  void aTokenOverTls() throws IOException {
    try (var client = connect("tls", tls()).token(content("token")).build()) {
      assertEquals(Optional.of("johndoe@example.com"), client.getUser("johndoe").email());
    }
  }

  @Test
  void aCertificate() throws IOException {
    var own = tls().keyManager(file("caller.pem"), file("caller.key"));
    try (var client = connect("mtls", own).build()) {
      User user = client.getUser("johndoe");
      assertEquals(Optional.of("John Doe"), user.fullName());
      assertEquals(Optional.empty(), user.email());
      Failure failure =
          assertThrows(
                  UserProfileException.class,
                  () -> client.getUser("johndoe", RequestOptions.DEFAULT.withFields("email")))
              .failure();
      assertEquals(Status.Code.PERMISSION_DENIED, failure.code());
      assertEquals(Optional.of("CALLER_NOT_ALLOWED"), failure.reason());
      assertFalse(failure.retryable());
    }
  }

  @Test
  void neither() throws IOException {
    for (var builder :
        new UserProfileClientBuilder[] {
          connect("tls", tls()), connect("tls", tls()).token("wrong")
        }) {
      try (var client = builder.build()) {
        Failure failure =
            assertThrows(UserProfileException.class, () -> client.getUser("johndoe")).failure();
        assertEquals(Status.Code.UNAUTHENTICATED, failure.code());
        assertEquals(Optional.of("CALLER_UNKNOWN"), failure.reason());
        assertFalse(failure.retryable());
      }
    }
  }

  private static UserProfileClientBuilder connect(
      String address, TlsChannelCredentials.Builder tls) throws IOException {
    return Environment.builder(content(address), tls.build());
  }

  private static TlsChannelCredentials.Builder tls() throws IOException {
    return TlsChannelCredentials.newBuilder().trustManager(file("ca.pem"));
  }

  private static File file(String name) {
    return FOLDER.resolve(name).toFile();
  }

  private static String content(String name) throws IOException {
    return Files.readString(FOLDER.resolve(name));
  }
}
