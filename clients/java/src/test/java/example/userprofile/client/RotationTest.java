package example.userprofile.client;

import static example.userprofile.client.Environment.assertSays;
import static example.userprofile.client.Environment.assertSaysNothingOf;
import static example.userprofile.client.Environment.plaintext;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Metadata;
import io.grpc.ServerCredentials;
import io.grpc.TlsChannelCredentials;
import io.grpc.TlsServerCredentials;
import io.grpc.TlsServerCredentials.ClientAuth;
import io.grpc.util.AdvancedTlsX509KeyManager;
import io.grpc.util.AdvancedTlsX509TrustManager;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.time.Duration;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Tokens and certificates that are replaced while a client is busy: no call fails. */
class RotationTest {

  private static final int ROTATIONS = 10;
  private static final int CALLERS = 16;
  private static final Duration TIMEOUT = Duration.ofSeconds(50);

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  @TempDir Path directory;

  /** Callers who call all the time, in threads. */
  private static final class Load implements AutoCloseable {

    private final AtomicInteger calls = new AtomicInteger();
    private final AtomicBoolean done = new AtomicBoolean();
    private final Queue<Throwable> failures = new ConcurrentLinkedQueue<>();
    private final List<Thread> threads;

    Load(UserProfileClient client) throws InterruptedException {
      Runnable caller =
          () -> {
            try {
              while (!done.get()) {
                client.getUser("johndoe");
                calls.incrementAndGet();
                Thread.sleep(2);
              }
            } catch (RuntimeException | InterruptedException failure) {
              failures.add(failure);
            }
          };
      threads = Stream.generate(() -> new Thread(caller)).limit(CALLERS).toList();
      threads.forEach(Thread::start);
      more();
    }

    /** Waits for further calls. */
    void more() throws InterruptedException {
      int before = calls.get();
      eventually(() -> calls.get() > before + CALLERS || !failures.isEmpty());
      assertEquals(List.of(), List.copyOf(failures));
    }

    @Override
    public void close() {
      done.set(true);
      for (Thread thread : threads) {
        try {
          thread.join();
        } catch (InterruptedException error) {
          throw new IllegalStateException(error);
        }
      }
      assertEquals(List.of(), List.copyOf(failures));
    }
  }

  @Test
  void aTokenIsReadAgainWhenItsFileChanges() throws Exception {
    Path file = directory.resolve("token");
    replace(file, "\ufeff token0 \r\n");
    var token = new TokenFile(file, Duration.ofMillis(20));
    try (var server = new TestServer(TestServer::found);
        var client = plaintext(server.target()).token(token).timeout(TIMEOUT).build();
        var load = new Load(client)) {
      for (int i = 1; i <= ROTATIONS; i++) {
        Files.delete(file);
        load.more();
        replace(file, "\n");
        load.more();
        String expected = "Bearer token" + i;
        replace(file, "token%d\n".formatted(i));
        eventually(() -> sent(server, server.calls.size() - 1).equals(expected));
      }
      for (int i = 0; i < server.calls.size(); i++) {
        assertTrue(sent(server, i).startsWith("Bearer token"), sent(server, i));
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"\n", "a-secret\nanother-secret\n", "a secret", "s\0e\0c\0r\0e\0t\0"})
  void aFileWithoutATokenIsRefused(String content) throws Exception {
    Path file = directory.resolve("token");
    replace(file, content);
    var builder = plaintext("localhost:1");
    var error = assertThrows(IllegalArgumentException.class, () -> builder.tokenFile(file));
    assertSays(file.toString(), error);
    assertSaysNothingOf("secret", error);
  }

  @Test
  void aTokenFileIsNeededAndOnlyOneToken() throws Exception {
    var builder = plaintext("localhost:1").token("secret");
    Path file = directory.resolve("token");
    var missing = assertThrows(IllegalArgumentException.class, () -> builder.tokenFile(file));
    assertSays("NoSuchFile", missing);
    replace(file, "secret");
    assertThrows(IllegalArgumentException.class, () -> builder.tokenFile(file));
    var remote = plaintext("192.0.2.1:1").tokenFile(file);
    var plaintext = assertThrows(IllegalArgumentException.class, remote::build);
    assertSays("in plaintext", plaintext);
  }

  /** The server's certificates and the client authority it trusts are others each time. */
  @Test
  void certificatesAreReadAgainByGrpcsOwnManagers() throws Exception {
    var authorities =
        List.of(new TestCa(directory.resolve("one")), new TestCa(directory.resolve("two")));
    var servers = List.of(authorities.get(0).issue("server"), authorities.get(1).issue("server"));
    var clients = List.of(authorities.get(0).issue("client"), authorities.get(1).issue("client"));
    Path ca = directory.resolve("ca.pem");
    Path certificate = directory.resolve("client.pem");
    Path key = directory.resolve("client.key");
    install(authorities.get(0), clients.get(0), ca, certificate, key);

    var keys = new AdvancedTlsX509KeyManager();
    var trust = AdvancedTlsX509TrustManager.newBuilder().build();
    var scheduler = Executors.newSingleThreadScheduledExecutor();
    try {
      keys.updateIdentityCredentials(
          certificate.toFile(), key.toFile(), 1, TimeUnit.MINUTES, scheduler);
      trust.updateTrustCredentials(ca.toFile(), 1, TimeUnit.MINUTES, scheduler);
      var tls = TlsChannelCredentials.newBuilder().keyManager(keys).trustManager(trust).build();
      var server = new TestServer(mutual(servers.get(0), authorities.get(0)), TestServer::found);
      try (var client = Environment.builder(server.target(), tls).timeout(TIMEOUT).build();
          var load = new Load(client)) {
        for (int i = 1; i <= ROTATIONS; i++) {
          int now = i % 2;
          install(authorities.get(now), clients.get(now), ca, certificate, key);
          // What the scheduler does once a minute.
          keys.updateIdentityCredentials(certificate.toFile(), key.toFile());
          trust.updateTrustCredentials(ca.toFile());
          load.more();
          server.drain();
          server =
              new TestServer(mutual(servers.get(now), authorities.get(now)), server.address());
          load.more();
        }
      } finally {
        server.close();
      }
    } finally {
      scheduler.shutdownNow();
    }
  }

  private static ServerCredentials mutual(TestCa.Identity identity, TestCa clients)
      throws IOException {
    return TlsServerCredentials.newBuilder()
        .keyManager(identity.certificate(), identity.key())
        .trustManager(clients.certificate())
        .clientAuth(ClientAuth.REQUIRE)
        .build();
  }

  private static void install(
      TestCa authority, TestCa.Identity client, Path ca, Path certificate, Path key)
      throws IOException {
    replace(ca, Files.readString(authority.certificate().toPath()));
    replace(certificate, Files.readString(client.certificate().toPath()));
    replace(key, Files.readString(client.key().toPath()));
  }

  /** Puts a file into the place of another, at once. */
  private static void replace(Path path, String content) throws IOException {
    Path next = path.resolveSibling(path.getFileName() + ".new");
    Files.writeString(next, content, StandardCharsets.UTF_8);
    Files.move(next, path, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
  }

  private static void eventually(BooleanSupplier condition) throws InterruptedException {
    long end = System.nanoTime() + TIMEOUT.toNanos();
    while (!condition.getAsBoolean()) {
      assertTrue(System.nanoTime() < end, "it never came true");
      Thread.sleep(1);
    }
  }

  private static String sent(TestServer server, int call) {
    return server.calls.get(call).get(AUTHORIZATION);
  }
}
