package example.userprofile.client;

import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.TlsChannelCredentials;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/** Builder of a client. */
public final class UserProfileClientBuilder {

  /** Interval of pings on an idle connection. The server allows one every 20 seconds. */
  private static final Duration KEEPALIVE = Duration.ofSeconds(30);

  /** Enough for a hundred profiles of 600 KB. */
  private static final int MAX_RESPONSE_BYTES = 64 * 1024 * 1024;

  private static final Duration TOKEN_FILE_INTERVAL = Duration.ofSeconds(1);

  private static final int MAX_RETRIES = 4;
  private static final int MAX_CONNECTIONS = 64;

  private final String target;
  private final ChannelCredentials credentials;
  private final List<ClientInterceptor> interceptors = new ArrayList<>();
  private Duration timeout = Duration.ofSeconds(5);
  private int retries = MAX_RETRIES;
  private int connections = 1;
  private boolean waitForReady = true;
  private boolean healthChecking;
  private @Nullable Supplier<String> token;
  private boolean tokenOverPlaintext;
  private Metadata metadata = new Metadata();
  private Consumer<ManagedChannelBuilder<?>> configurator = channel -> {};

  UserProfileClientBuilder(String target, ChannelCredentials credentials) {
    this.target = Objects.requireNonNull(target, "target");
    this.credentials = Objects.requireNonNull(credentials, "credentials");
  }

  /**
   * Sets the timeout of each call, retries included; 5 seconds by default. An earlier deadline of
   * the current {@link io.grpc.Context} takes precedence.
   *
   * @param timeout more than zero, and at most a day
   * @return this builder
   */
  public UserProfileClientBuilder timeout(Duration timeout) {
    Calls.checkTimeout(timeout);
    this.timeout = timeout;
    return this;
  }

  /**
   * Sets how often a call is retried at most while the service is unavailable; 4 by default. All
   * calls are reads, so retrying is safe. gRPC stops retrying while most calls fail.
   *
   * @param retries 0 to 4
   * @return this builder
   */
  public UserProfileClientBuilder retries(int retries) {
    this.retries = inRange("retries", retries, 0, MAX_RETRIES);
    return this;
  }

  /**
   * Sets whether calls wait until a server can be reached, at most until their deadline, and so
   * survive a restart. They do by default; otherwise they fail after their retries.
   *
   * @param waitForReady whether they wait
   * @return this builder
   */
  public UserProfileClientBuilder waitForReady(boolean waitForReady) {
    this.waitForReady = waitForReady;
    return this;
  }

  /**
   * Sets the number of connections to each server address; 1 by default. With more, calls take
   * turns, so that they reach several processes of one server.
   *
   * @param connections 1 to 64
   * @return this builder
   */
  public UserProfileClientBuilder connections(int connections) {
    this.connections = inRange("connections", connections, 1, MAX_CONNECTIONS);
    return this;
  }

  /**
   * Watches each server's health by the standard protocol, and sends no calls to servers that
   * report NOT_SERVING. The watch carries no token; a server or gateway that refuses it gets no
   * calls at all. Without health checking, a retry goes to the next server.
   *
   * @return this builder
   */
  public UserProfileClientBuilder healthChecking() {
    healthChecking = true;
    return this;
  }

  /**
   * Sends {@code authorization: Bearer TOKEN} with every call.
   *
   * @param token the token alone, without the word Bearer
   * @return this builder
   */
  public UserProfileClientBuilder token(String token) {
    BearerToken.checked(token);
    return token(() -> token);
  }

  /**
   * Sends {@code authorization: Bearer TOKEN} with every call, with the token that the supplier
   * returns.
   *
   * @param token called for each call, in the calling thread, so it should cache the token until it
   *     expires; the call fails with what it throws
   * @return this builder
   */
  public UserProfileClientBuilder token(Supplier<String> token) {
    if (this.token != null) {
      throw new IllegalArgumentException("set one token, one supplier or one token file");
    }
    this.token = Objects.requireNonNull(token, "token");
    return this;
  }

  /**
   * Sends {@code authorization: Bearer TOKEN} with every call, with the token in a file. It is
   * looked at once a second at most, and read again when it has changed; while it is missing or
   * invalid, the last valid token stays in use.
   *
   * @param file a file with the token alone, in UTF-8
   * @return this builder
   * @throws IllegalArgumentException if there is no token in it
   */
  public UserProfileClientBuilder tokenFile(Path file) {
    return token(new TokenFile(file, TOKEN_FILE_INTERVAL));
  }

  /**
   * Allows sending the token without TLS. Anyone on the network path can then read it.
   *
   * @return this builder
   */
  public UserProfileClientBuilder allowTokenOverPlaintext() {
    tokenOverPlaintext = true;
    return this;
  }

  /**
   * Sends metadata with every call.
   *
   * @param metadata the metadata, which is copied
   * @return this builder
   */
  public UserProfileClientBuilder metadata(Metadata metadata) {
    this.metadata = Calls.copyOf(metadata);
    return this;
  }

  /**
   * Adds interceptors. They see each call once, whatever its retries, and don't see the token. The
   * last one comes first, as with {@link ManagedChannelBuilder#intercept}.
   *
   * @param interceptors the interceptors
   * @return this builder
   */
  public UserProfileClientBuilder intercept(ClientInterceptor... interceptors) {
    this.interceptors.addAll(List.of(interceptors));
    return this;
  }

  /**
   * Configures what this builder has no method for, such as a proxy, an executor or OpenTelemetry.
   *
   * @param configurator gets the builder of each channel after the client has configured it
   * @return this builder
   */
  public UserProfileClientBuilder configureChannel(
      Consumer<ManagedChannelBuilder<?>> configurator) {
    this.configurator = this.configurator.andThen(configurator);
    return this;
  }

  /**
   * Makes the client. Doesn't connect yet.
   *
   * @return a client, to be closed
   * @throws IllegalArgumentException if the target, a certificate or a key is invalid, or if the
   *     token would be sent to another machine without TLS
   */
  public UserProfileClient build() {
    if (target.isBlank()) {
      throw new IllegalArgumentException("the target must not be empty");
    }
    boolean safe =
        credentials instanceof TlsChannelCredentials || BearerToken.staysOnThisMachine(target);
    if (token != null && !safe && !tokenOverPlaintext) {
      throw new IllegalArgumentException(
          "the token would be sent to %s in plaintext; use TLS or allowTokenOverPlaintext()"
              .formatted(target));
    }
    if (credentials instanceof TlsChannelCredentials tls) {
      TlsCheck.check(tls);
    }
    return new UserProfileClient(
        new Connections(Stream.generate(this::loadBalanced).limit(connections).toList()),
        () -> connection(channel()),
        new Calls(target, timeout, waitForReady, metadata, token));
  }

  /** Returns a connection to all servers of the target. */
  private Connection loadBalanced() {
    var channel = channel().defaultServiceConfig(ServiceConfig.of(healthChecking, retries));
    if (retries == 0) {
      channel.disableRetry();
    }
    Connection connection = connection(channel);
    Reconnecting.keep(connection.channel());
    return connection;
  }

  private ManagedChannelBuilder<?> channel() {
    return Grpc.newChannelBuilder(target, credentials)
        .disableServiceConfigLookUp() // a DNS TXT record could replace ours
        .keepAliveTime(KEEPALIVE.toSeconds(), TimeUnit.SECONDS)
        .keepAliveTimeout(10, TimeUnit.SECONDS)
        .keepAliveWithoutCalls(true)
        .maxInboundMessageSize(MAX_RESPONSE_BYTES);
  }

  private Connection connection(ManagedChannelBuilder<?> builder) {
    configurator.accept(builder);
    ManagedChannel channel = builder.build();
    return new Connection(channel, ClientInterceptors.intercept(channel, interceptors));
  }

  private static int inRange(String name, int number, int least, int most) {
    if (number < least || number > most) {
      throw new IllegalArgumentException(
          "%s must be %d to %d, not %d".formatted(name, least, most, number));
    }
    return number;
  }
}
