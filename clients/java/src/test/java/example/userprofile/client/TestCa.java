package example.userprofile.client;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** A certificate authority of one test run. The JDK's keytool makes it and all that it signs. */
final class TestCa {

  /** A certificate and its private key, as PEM files. */
  record Identity(File certificate, File key) {}

  private static final String PASSWORD = "changeit";

  private final Path directory;
  private final Identity ca;

  TestCa(Path directory) throws Exception {
    this.directory = Files.createDirectories(directory);
    ca = make("ca", "-ext", "bc:critical=ca:true", "-ext", "ku:critical=keyCertSign");
  }

  File certificate() {
    return ca.certificate();
  }

  Identity issue(String name) throws Exception {
    return make(name, "-signer", "ca", "-ext", "san=ip:127.0.0.1");
  }

  Identity issueFor(String purpose) throws Exception {
    return make(purpose, "-signer", "ca", "-ext", "eku=" + purpose);
  }

  /** Makes one that has signed itself, and expired yesterday. */
  Identity expired(String name) throws Exception {
    return make(name, "-startdate", "-2d", "-validity", "1", "-ext", "bc:critical=ca:true");
  }

  private Identity make(String name, String... options) throws Exception {
    Path store = directory.resolve("keys.p12");
    List<String> command =
        new ArrayList<>(
            List.of(
                Path.of(System.getProperty("java.home"), "bin", "keytool").toString(),
                "-genkeypair",
                "-keystore",
                store.toString(),
                "-storepass",
                PASSWORD,
                "-alias",
                name,
                "-dname",
                "CN=" + name,
                "-keyalg",
                "EC",
                "-groupname",
                "secp256r1"));
    command.addAll(List.of(options));
    run(command);
    return export(KeyStore.getInstance(store.toFile(), PASSWORD.toCharArray()), name);
  }

  private void run(List<String> command) throws IOException, InterruptedException {
    Path output = directory.resolve("keytool.out");
    Process keytool =
        new ProcessBuilder(command)
            .redirectErrorStream(true)
            .redirectOutput(output.toFile())
            .start();
    try {
      if (!keytool.waitFor(60, TimeUnit.SECONDS) || keytool.exitValue() != 0) {
        throw new IOException("keytool failed: " + Files.readString(output));
      }
    } finally {
      keytool.destroyForcibly();
    }
  }

  private Identity export(KeyStore store, String name)
      throws GeneralSecurityException, IOException {
    byte[] certificate = store.getCertificate(name).getEncoded();
    byte[] key = store.getKey(name, PASSWORD.toCharArray()).getEncoded();
    return new Identity(
        pem(name + ".pem", "CERTIFICATE", certificate), pem(name + ".key", "PRIVATE KEY", key));
  }

  private File pem(String file, String label, byte[] content) throws IOException {
    String text = Base64.getMimeEncoder().encodeToString(content);
    String pem = "-----BEGIN %1$s-----\n%2$s\n-----END %1$s-----\n".formatted(label, text);
    return Files.writeString(directory.resolve(file), pem).toFile();
  }
}
