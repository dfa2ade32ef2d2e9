package example.userprofile.client;

import io.grpc.CallCredentials;
import io.grpc.Metadata;
import java.util.concurrent.Executor;
import java.util.regex.Pattern;

/** Sends a token with a call. As credentials it is out of sight of interceptors. */
final class BearerToken extends CallCredentials {

  static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  /** The token68 of RFC 7235. */
  private static final Pattern TOKEN = Pattern.compile("[A-Za-z0-9._~+/-]+=*");

  private static final String OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";

  /** The targets that are this machine, as far as known without DNS. */
  private static final Pattern LOOPBACK =
      Pattern.compile(
          "unix:/.+|(?:dns:///)?(?:localhost|127(?:\\.%s){3}|\\[::1])(?::\\d+)?".formatted(OCTET),
          Pattern.CASE_INSENSITIVE);

  private final Metadata headers = new Metadata();

  BearerToken(String token) {
    headers.put(AUTHORIZATION, "Bearer " + checked(token));
  }

  /** Returns the token, or throws IllegalArgumentException if it is malformed. */
  static String checked(String token) {
    if (!TOKEN.matcher(token).matches()) {
      // Without the token: messages end up in logs.
      throw new IllegalArgumentException(
          "the token must consist of letters, digits and -._~+/, and may end with =");
    }
    return token;
  }

  static boolean staysOnThisMachine(String target) {
    return LOOPBACK.matcher(target).matches();
  }

  @Override
  public void applyRequestMetadata(
      RequestInfo request, Executor executor, MetadataApplier applier) {
    applier.apply(headers);
  }
}
