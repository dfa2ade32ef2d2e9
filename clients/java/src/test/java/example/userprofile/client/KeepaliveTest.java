package example.userprofile.client;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.InsecureChannelCredentials;
import java.io.DataInputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;

/** Pings that notice a lost connection. HTTP/2 frames by hand (RFC 9113). */
class KeepaliveTest {

  private static final int PREFACE_BYTES = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".length();
  private static final byte SETTINGS = 4;
  private static final byte PING = 6;

  /** How often the server allows a ping. It closes connections that ping more. */
  private static final Duration ALLOWED = Duration.ofSeconds(20);

  @Test
  void anIdleConnectionIsPingedAsOftenAsTheServerAllows() throws IOException {
    try (var listener = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
        var client =
            UserProfileClient.builder(
                    "127.0.0.1:" + listener.getLocalPort(), InsecureChannelCredentials.create())
                .timeout(Duration.ofSeconds(1))
                .build()) {
      var call =
          CompletableFuture.runAsync(
              () -> assertThrows(UserProfileException.class, () -> client.getUser("johndoe")));
      try (var connection = listener.accept()) {
        connection.setSoTimeout((int) Environment.PATIENCE.toMillis());
        long began = System.nanoTime();
        awaitPing(connection);
        var took = Duration.ofNanos(System.nanoTime() - began);
        assertTrue(call.isDone(), "the ping came while a call was in progress");
        assertTrue(took.compareTo(ALLOWED) > 0, () -> "a ping after " + took);
      }
      call.join();
    }
  }

  private static void awaitPing(Socket connection) throws IOException {
    connection.getOutputStream().write(new byte[] {0, 0, 0, SETTINGS, 0, 0, 0, 0, 0});
    var received = new DataInputStream(connection.getInputStream());
    received.skipNBytes(PREFACE_BYTES);
    var header = new byte[9];
    do {
      received.readFully(header);
      received.skipNBytes(
          Byte.toUnsignedInt(header[0]) << 16
              | Byte.toUnsignedInt(header[1]) << 8
              | Byte.toUnsignedInt(header[2]));
    } while (header[3] != PING);
  }
}
