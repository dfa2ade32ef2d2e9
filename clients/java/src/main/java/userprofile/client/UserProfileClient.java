package userprofile.client;

import static io.grpc.stub.MetadataUtils.newCaptureMetadataInterceptor;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import java.util.stream.IntStream;
import userprofile.v1.UserProfile;
import userprofile.v1.UserProfile.BatchGetUsersRequest;
import userprofile.v1.UserProfile.GetUserRequest;
import userprofile.v1.UserProfileServiceGrpc;
import userprofile.v1.UserProfileServiceGrpc.UserProfileServiceBlockingStub;

/**
 * Asks a userprofile service.
 *
 * <p>Safe to share between threads: make one and close it at the end. It connects with the first
 * call, and again by itself whenever a connection is lost; calls wait for a server within their deadline.
 * What the service could not answer just now (UNAVAILABLE) is retried within it, unless the server
 * asks for no more.
 *
 * <p>Every call throws {@link UserProfileException} if it fails, also for an answer that it doesn't
 * understand.
 */
public final class UserProfileClient implements AutoCloseable {

  /** Between two pings on a quiet connection. Servers of ours allow one every 20 seconds. */
  private static final Duration KEEPALIVE = Duration.ofSeconds(30);

  /** A hundred profiles, whatever somebody has put into their names. */
  private static final int MAX_RESPONSE_BYTES = 64 * 1024 * 1024;

  private final ManagedChannel channel;
  private final UserProfileServiceBlockingStub stub;
  private final Duration timeout;

  private UserProfileClient(
      ManagedChannel channel, UserProfileServiceBlockingStub stub, Duration timeout) {
    this.channel = channel;
    this.stub = stub;
    this.timeout = timeout;
  }

  /**
   * Begins a client.
   *
   * @param target the service's address: {@code host:port}, or whatever else gRPC resolves
   * @param credentials {@link TlsChannelCredentials}, with an own CA or a client certificate if
   *     need be, or {@link io.grpc.InsecureChannelCredentials} for plaintext
   * @return what to build the client with
   */
  public static Builder builder(String target, ChannelCredentials credentials) {
    return new Builder(target, credentials);
  }

  /**
   * Returns the user with this name, who is expected to exist.
   *
   * @param username the name, compared byte by byte
   * @return the user
   * @throws UserProfileException also if nobody has the name
   */
  public User getUser(String username) {
    checkUnicode(username, "username");
    var request = GetUserRequest.newBuilder().setUsername(username).build();
    var trailers = new AtomicReference<Metadata>();
    var response = call(stub -> stub.getUser(request), trailers);
    if (!response.hasUser() || !response.getUser().getUsername().equals(username)) {
      throw new UserProfileException(Failure.notUnderstood(trailers.get()));
    }
    return User.from(response.getUser());
  }

  /**
   * Returns the user with this name, if there is one.
   *
   * @param username the name, compared byte by byte
   * @return the user, or empty if nobody has the name
   */
  public Optional<User> findUser(String username) {
    try {
      return Optional.of(getUser(username));
    } catch (UserProfileException error) {
      if (error.failure().isUserNotFound()) {
        return Optional.empty();
      }
      throw error;
    }
  }

  /**
   * Returns what became of each of up to 100 names, in their order. That one of them has no user,
   * or can't be read, is an outcome of its own and takes nothing from the others.
   *
   * @param usernames the names, at least one
   * @return as many results as names
   */
  public List<UserResult> batchGetUsers(List<String> usernames) {
    IntStream.range(0, usernames.size())
        .forEach(i -> checkUnicode(usernames.get(i), "usernames[%d]".formatted(i)));
    var request = BatchGetUsersRequest.newBuilder().addAllUsernames(usernames).build();
    var trailers = new AtomicReference<Metadata>();
    var results = call(stub -> stub.batchGetUsers(request), trailers).getResultsList();
    if (results.size() != request.getUsernamesCount()) {
      throw new UserProfileException(Failure.notUnderstood(trailers.get()));
    }
    return IntStream.range(0, results.size())
        .mapToObj(i -> toResult(results.get(i), request.getUsernames(i), trailers.get()))
        .toList();
  }

  /** Cancels the calls in progress and closes the connections. */
  @Override
  public void close() {
    channel.shutdownNow();
  }

  private <T> T call(
      Function<UserProfileServiceBlockingStub, T> method, AtomicReference<Metadata> trailers) {
    var capture = newCaptureMetadataInterceptor(new AtomicReference<>(), trailers);
    try {
      return method.apply(stub.withInterceptors(capture).withDeadlineAfter(timeout));
    } catch (StatusRuntimeException error) {
      throw new UserProfileException(Failure.from(error), error);
    }
  }

  private static UserResult toResult(
      UserProfile.UserResult result, String username, Metadata trailers) {
    if (result.hasError()) {
      return Failure.from(result.getError(), trailers);
    }
    if (result.hasUser() && result.getUser().getUsername().equals(username)) {
      return User.from(result.getUser());
    }
    return Failure.notUnderstood(trailers);
  }

  /** Protobuf would send a question mark for half a surrogate pair: another user's name. */
  private static void checkUnicode(String username, String field) {
    if (!StandardCharsets.UTF_8.newEncoder().canEncode(username)) {
      throw new UserProfileException(Failure.notUnicode(field));
    }
  }

  /** What a client is made of. */
  public static final class Builder {

    private final String target;
    private final ChannelCredentials credentials;
    private Duration timeout = Duration.ofSeconds(5);
    private Optional<BearerToken> token = Optional.empty();
    private boolean tokenOverPlaintext;
    private boolean failFast;
    private boolean healthChecking;

    private Builder(String target, ChannelCredentials credentials) {
      this.target = Objects.requireNonNull(target, "target");
      this.credentials = Objects.requireNonNull(credentials, "credentials");
    }

    /**
     * Sets what each call may take, retries included; 5 seconds unless it is set. The deadline of
     * the {@link io.grpc.Context} in which a call is made counts as well.
     *
     * @param timeout more than zero
     * @return this builder
     */
    public Builder timeout(Duration timeout) {
      if (timeout.isNegative() || timeout.isZero()) {
        throw new IllegalArgumentException("the timeout must be more than zero, not " + timeout);
      }
      this.timeout = timeout;
      return this;
    }

    /**
     * Sends {@code authorization: Bearer TOKEN} with every call.
     *
     * @param token the token alone, without the word Bearer
     * @return this builder
     */
    public Builder token(String token) {
      this.token = Optional.of(new BearerToken(token));
      return this;
    }

    /**
     * Lets the token go over the network without TLS, where everyone on the way can read it.
     *
     * @return this builder
     */
    public Builder allowTokenOverPlaintext() {
      tokenOverPlaintext = true;
      return this;
    }

    /**
     * Lets calls fail, after their retries, where no server can be reached. Otherwise they wait for
     * one until their deadline, so that a restart isn't felt.
     *
     * @return this builder
     */
    public Builder failFast() {
      failFast = true;
      return this;
    }

    /**
     * Watches each server's health by the standard protocol, and leaves those alone that say
     * NOT_SERVING. The watch carries no token, and a server or gateway that refuses it is not
     * called at all; without it, a retry goes to the next server.
     *
     * @return this builder
     */
    public Builder healthChecking() {
      healthChecking = true;
      return this;
    }

    /**
     * Makes the client. Nothing is sent yet.
     *
     * @return a client, to be closed
     * @throws IllegalArgumentException if the target can't be understood, if a certificate or key
     *     can't be used, or if there is a token that would leave this machine without TLS
     */
    public UserProfileClient build() {
      if (target.isBlank()) {
        throw new IllegalArgumentException("the target must not be empty");
      }
      boolean safe =
          credentials instanceof TlsChannelCredentials || BearerToken.staysOnThisMachine(target);
      if (token.isPresent() && !safe && !tokenOverPlaintext) {
        throw new IllegalArgumentException(
            "a token would go to %s without TLS: use TLS, or call allowTokenOverPlaintext()"
                .formatted(target));
      }
      if (credentials instanceof TlsChannelCredentials tls) {
        TlsCheck.check(tls);
      }
      ManagedChannel channel =
          Grpc.newChannelBuilder(target, credentials)
              .defaultServiceConfig(
                  healthChecking ? ServiceConfig.HEALTH_CHECKING : ServiceConfig.DEFAULT)
              .disableServiceConfigLookUp() // else that of a DNS TXT record would replace it
              .keepAliveTime(KEEPALIVE.toSeconds(), TimeUnit.SECONDS)
              .keepAliveTimeout(10, TimeUnit.SECONDS)
              .keepAliveWithoutCalls(true)
              .maxInboundMessageSize(MAX_RESPONSE_BYTES)
              .build();
      Reconnecting.keep(channel);
      var stub = UserProfileServiceGrpc.newBlockingStub(channel);
      if (!failFast) {
        stub = stub.withWaitForReady();
      }
      return new UserProfileClient(
          channel, token.isPresent() ? stub.withCallCredentials(token.get()) : stub, timeout);
    }
  }
}
