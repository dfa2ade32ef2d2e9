package example.userprofile.client;

import io.grpc.TlsChannelCredentials;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.CertificateParsingException;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Checks certificates and keys before anything connects.
 *
 * <p>Given a file without certificates, gRPC trusts nobody or the default authorities, and it has
 * one message for all invalid keys.
 */
final class TlsCheck {

  /** Allows for new certificates from a machine whose clock is ahead. */
  private static final Duration CLOCK_SKEW = Duration.ofMinutes(5);

  /** Of RFC 5280, 4.2.1.12: clientAuth, and any. */
  private static final List<String> FOR_CLIENTS = List.of("1.3.6.1.5.5.7.3.2", "2.5.29.37.0");

  private static final Pattern BLOCK =
      Pattern.compile(
          "^-----BEGIN ([^\\r\\n]*?)-----[ \\t]*$(.*?)^-----END \\1-----[ \\t]*$",
          Pattern.MULTILINE | Pattern.DOTALL);

  private record Block(String label, String body) {}

  private TlsCheck() {}

  /** Throws IllegalArgumentException. The message contains nothing of a key. */
  static void check(TlsChannelCredentials credentials) {
    byte[] roots = credentials.getRootCertificates();
    if (roots != null) {
      checkAuthorities(certificates(roots, "the file of authorities"));
    }
    byte[] chain = credentials.getCertificateChain();
    if (chain != null) {
      X509Certificate own = certificates(chain, "the client certificate's file").get(0);
      if (credentials.getPrivateKeyPassword() == null) {
        checkKey(credentials.getPrivateKey(), own);
      }
      validityProblem(own).ifPresent(problem -> refuse("the client certificate " + problem));
      checkPurpose(own);
    }
  }

  /** A server cuts off a client with another certificate, and only the server's log says why. */
  private static void checkPurpose(X509Certificate own) {
    try {
      List<String> purposes = own.getExtendedKeyUsage();
      if (purposes != null && Collections.disjoint(purposes, FOR_CLIENTS)) {
        refuse("the client certificate's extended key usage lacks clientAuth");
      }
    } catch (CertificateParsingException e) {
      throw new IllegalArgumentException("the client certificate's extensions are damaged", e);
    }
  }

  private static void checkAuthorities(List<X509Certificate> certificates) {
    var authorities =
        certificates.stream()
            .filter(
                one ->
                    one.getBasicConstraints() >= 0
                        // One that has signed itself may be trusted as it is.
                        || one.getSubjectX500Principal().equals(one.getIssuerX500Principal()))
            .toList();
    if (authorities.isEmpty()) {
      refuse("the file of authorities holds a certificate issued by an authority, not its own");
    }
    var problems = authorities.stream().map(TlsCheck::validityProblem).toList();
    if (problems.stream().allMatch(Optional::isPresent)) {
      refuse("the authority's certificate " + problems.get(0).get());
    }
  }

  private static void checkKey(byte[] pem, X509Certificate certificate) {
    String file = "the client key's file";
    List<Block> blocks = blocks(pem, file);
    Block key =
        blocks.stream()
            .filter(block -> block.label().endsWith("PRIVATE KEY"))
            .findFirst()
            .orElseThrow(
                () ->
                    new IllegalArgumentException(
                        "%s holds a %s, not a private key"
                            .formatted(file, blocks.get(0).label())));
    if (key.label().startsWith("ENCRYPTED") || key.body().contains("Proc-Type:")) {
      refuse("the client key is encrypted; decrypt it first");
    }
    if (!key.label().equals("PRIVATE KEY")) {
      refuse("the client key is a %s; it must be PKCS#8 (openssl pkcs8 -topk8 -nodes)"
              .formatted(key.label()));
    }
    String algorithm = certificate.getPublicKey().getAlgorithm();
    try {
      var content = new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(key.body()));
      if (!belongsTo(certificate, KeyFactory.getInstance(algorithm).generatePrivate(content))) {
        refuse("the client key doesn't belong to the certificate");
      }
    } catch (GeneralSecurityException e) {
      // Its message might quote what it couldn't read.
      refuse("the client key is damaged, or of another kind than the certificate's (" + algorithm
              + ")");
    }
  }

  private static boolean belongsTo(X509Certificate certificate, PrivateKey key)
      throws GeneralSecurityException {
    String name =
        switch (key.getAlgorithm()) {
          case "EC" -> "SHA256withECDSA";
          case "RSA" -> "SHA256withRSA";
          default -> key.getAlgorithm();
        };
    byte[] something = {1, 2, 3};
    Signature signature = Signature.getInstance(name);
    signature.initSign(key);
    signature.update(something);
    byte[] signed = signature.sign();
    signature.initVerify(certificate.getPublicKey());
    signature.update(something);
    return signature.verify(signed);
  }

  private static List<X509Certificate> certificates(byte[] pem, String file) {
    List<Block> blocks = blocks(pem, file);
    var found = new ArrayList<X509Certificate>();
    for (Block block : blocks) {
      if (!block.label().equals("CERTIFICATE")) {
        continue;
      }
      try {
        byte[] content = Base64.getMimeDecoder().decode(block.body());
        found.add(
            (X509Certificate)
                CertificateFactory.getInstance("X.509")
                    .generateCertificate(new ByteArrayInputStream(content)));
      } catch (CertificateException | IllegalArgumentException e) {
        throw new IllegalArgumentException(
            "certificate %d in %s is damaged".formatted(found.size() + 1, file), e);
      }
    }
    if (found.isEmpty()) {
      refuse("%s holds a %s, not a certificate".formatted(file, blocks.get(0).label()));
    }
    return found;
  }

  private static List<Block> blocks(byte[] pem, String file) {
    String text = new String(Objects.requireNonNull(pem), StandardCharsets.ISO_8859_1);
    if (text.isBlank()) {
      refuse(file + " is empty");
    }
    List<Block> blocks =
        BLOCK
            .matcher(text)
            .results()
            .map(match -> new Block(match.group(1), match.group(2)))
            .toList();
    Matcher begin = Pattern.compile("-----BEGIN ").matcher(text);
    if (begin.results().count() != blocks.size()) {
      refuse(file + " is damaged: not every PEM block in it is whole");
    }
    if (blocks.isEmpty()) {
      refuse(file + " isn't PEM");
    }
    return blocks;
  }

  private static Optional<String> validityProblem(X509Certificate certificate) {
    Instant now = Instant.now();
    Instant notAfter = certificate.getNotAfter().toInstant();
    Instant notBefore = certificate.getNotBefore().toInstant();
    if (notAfter.isBefore(now)) {
      return Optional.of("expired at " + notAfter);
    }
    if (notBefore.isAfter(now.plus(CLOCK_SKEW))) {
      return Optional.of("isn't valid before " + notBefore);
    }
    return Optional.empty();
  }

  private static void refuse(String problem) {
    throw new IllegalArgumentException(problem);
  }
}
