package userprofile.client;

import static io.grpc.stub.MetadataUtils.newCaptureMetadataInterceptor;

import com.google.protobuf.FieldMask;
import com.google.protobuf.MessageLite;
import example.userprofile.v1.BatchGetUsersRequest;
import example.userprofile.v1.BatchGetUsersResponse;
import example.userprofile.v1.GetUserRequest;
import example.userprofile.v1.UserProfileServiceGrpc.UserProfileServiceBlockingStub;
import example.userprofile.v1.UserProfileServiceGrpc;
import io.grpc.ChannelCredentials;
import io.grpc.ConnectivityState;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.IntStream;

/**
 * Client of a userprofile service.
 *
 * <p>Safe to share between threads: make one and close it at the end. The first call connects it;
 * lost connections are re-established in the background. Calls wait for a server until their
 * deadline. Calls that fail with UNAVAILABLE, or that an overloaded server refuses, are retried
 * unless the server forbids it.
 *
 * <p>Calls that fail throw {@link UserProfileException}.
 */
public final class UserProfileClient implements AutoCloseable {

  /** Interval of pings on an idle connection. The server allows one every 20 seconds. */
  private static final Duration KEEPALIVE = Duration.ofSeconds(30);

  /**
   * What the server accepts by default, and more than twice the largest valid request. Its refusal
   * of a larger one would be retried for seconds, like that of an overloaded server. With gRPC's
   * own {@code withMaxOutboundMessageSize}, a client's first call would never end.
   */
  private static final int MAX_REQUEST_BYTES = 64 * 1024;

  /** Enough for a hundred profiles of 600 KB. */
  private static final int MAX_RESPONSE_BYTES = 64 * 1024 * 1024;

  private static final Duration TOKEN_FILE_INTERVAL = Duration.ofSeconds(1);

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
   * Returns a builder of a client.
   *
   * @param target the service's address: {@code host:port}, or whatever else gRPC resolves
   * @param credentials {@link TlsChannelCredentials}, optionally with your own CA or a client
   *     certificate, or {@link io.grpc.InsecureChannelCredentials} for plaintext
   * @return the builder
   */
  public static Builder builder(String target, ChannelCredentials credentials) {
    return new Builder(target, credentials);
  }

  /**
   * Returns the user with this username.
   *
   * @param username the name, compared byte by byte
   * @return the user
   * @throws UserProfileException if the call fails, or there is no such user
   */
  public User getUser(String username) {
    return getUser(GetUserRequest.newBuilder(), username);
  }

  /**
   * Returns some fields of the user with this username.
   *
   * @param username the name, compared byte by byte
   * @param fields the fields to return, by their names in the contract, for example {@code
   *     full_name}; the others are empty, and the username is always set
   * @return the user
   * @throws UserProfileException if the call fails, or there is no such user
   */
  public User getUser(String username, Collection<String> fields) {
    return getUser(GetUserRequest.newBuilder().setReadMask(readMask(fields)), username);
  }

  private User getUser(GetUserRequest.Builder builder, String username) {
    checkUnicode(username, "username");
    var request = checkSize(builder.setUsername(username).build());
    var trailers = new AtomicReference<Metadata>();
    var response = call(stub -> stub.getUser(request), trailers);
    if (!response.hasUser() || !response.getUser().getUsername().equals(username)) {
      throw new UserProfileException(Failure.unreadable(trailers.get()));
    }
    return User.from(response.getUser());
  }

  /**
   * Returns the user with this username, if there is one.
   *
   * @param username the name, compared byte by byte
   * @return the user, or empty if there is no such user
   */
  public Optional<User> findUser(String username) {
    return find(() -> getUser(username));
  }

  /**
   * Returns some fields of the user with this username, if there is one.
   *
   * @param username the name, compared byte by byte
   * @param fields the names of the fields, as for {@link #getUser(String, Collection)}
   * @return the user, or empty if there is no such user
   */
  public Optional<User> findUser(String username, Collection<String> fields) {
    return find(() -> getUser(username, fields));
  }

  private static Optional<User> find(Supplier<User> get) {
    try {
      return Optional.of(get.get());
    } catch (UserProfileException error) {
      if (error.failure().isUserNotFound()) {
        return Optional.empty();
      }
      throw error;
    }
  }

  /**
   * Returns a result for each of up to 100 usernames. A username that has no user, or can't be
   * read, does not affect the others.
   *
   * @param usernames the usernames, at least one
   * @return the results by username, in order
   */
  public Map<String, UserResult> batchGetUsers(List<String> usernames) {
    return batchGetUsers(BatchGetUsersRequest.newBuilder(), usernames);
  }

  /**
   * Returns a result for each of up to 100 usernames, with some fields of the users.
   *
   * @param usernames the usernames, at least one
   * @param fields the names of the fields, as for {@link #getUser(String, Collection)}
   * @return the results by username, in order
   */
  public Map<String, UserResult> batchGetUsers(List<String> usernames, Collection<String> fields) {
    return batchGetUsers(
        BatchGetUsersRequest.newBuilder().setReadMask(readMask(fields)), usernames);
  }

  private Map<String, UserResult> batchGetUsers(
      BatchGetUsersRequest.Builder builder, List<String> usernames) {
    IntStream.range(0, usernames.size())
        .forEach(i -> checkUnicode(usernames.get(i), "usernames[%d]".formatted(i)));
    var request = checkSize(builder.addAllUsernames(usernames).build());
    var trailers = new AtomicReference<Metadata>();
    var received = new HashMap<String, BatchGetUsersResponse.Result>();
    for (var result : call(stub -> stub.batchGetUsers(request), trailers).getResultsList()) {
      received.put(result.getUsername(), result);
    }
    var results = new LinkedHashMap<String, UserResult>();
    for (String username : usernames) {
      var result =
          received.getOrDefault(username, BatchGetUsersResponse.Result.getDefaultInstance());
      results.put(username, toResult(result, username, trailers.get()));
    }
    return Collections.unmodifiableMap(results);
  }

  private static FieldMask readMask(Collection<String> fields) {
    // An empty mask would request all fields.
    return FieldMask.newBuilder().addPaths("username").addAllPaths(fields).build();
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
      throw new UserProfileException(Failure.from(lastFailure(error).orElse(error)), error);
    }
  }

  /** Returns the connection error if the deadline has passed while no server could be reached. */
  private Optional<StatusRuntimeException> lastFailure(StatusRuntimeException error) {
    if (error.getStatus().getCode() != Status.Code.DEADLINE_EXCEEDED
        || channel.getState(false) != ConnectivityState.TRANSIENT_FAILURE) {
      return Optional.empty();
    }
    try { // In TRANSIENT_FAILURE, gRPC fails this call at once and sends nothing.
      HealthGrpc.newBlockingStub(channel)
          .withDeadlineAfter(1, TimeUnit.SECONDS)
          .check(HealthCheckRequest.getDefaultInstance());
    } catch (StatusRuntimeException refusal) {
      if (refusal.getStatus().getCode() == Status.Code.UNAVAILABLE) {
        return Optional.of(refusal);
      }
    }
    return Optional.empty();
  }

  private static UserResult toResult(
      BatchGetUsersResponse.Result result, String username, Metadata trailers) {
    if (result.hasError()) {
      return Failure.from(result.getError(), trailers);
    }
    if (result.hasUser() && result.getUser().getUsername().equals(username)) {
      return User.from(result.getUser());
    }
    return Failure.unreadable(trailers);
  }

  /** Protobuf would send a lone surrogate as a question mark: another username. */
  private static void checkUnicode(String username, String field) {
    if (!StandardCharsets.UTF_8.newEncoder().canEncode(username)) {
      throw new UserProfileException(Failure.notUnicode(field));
    }
  }

  private static <T extends MessageLite> T checkSize(T request) {
    if (request.getSerializedSize() > MAX_REQUEST_BYTES) {
      throw new UserProfileException(
          Failure.tooLarge(request.getSerializedSize(), MAX_REQUEST_BYTES));
    }
    return request;
  }

  /** Builder of a client. */
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
     * Sets the timeout of each call, retries included; 5 seconds by default. An earlier deadline of
     * the current {@link io.grpc.Context} takes precedence.
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
      var headers = new BearerToken.Headers(token);
      return token(() -> headers);
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
    public Builder tokenFile(Path file) {
      return token(new TokenFile(file, TOKEN_FILE_INTERVAL));
    }

    Builder token(Supplier<BearerToken.Headers> headers) {
      if (token.isPresent()) {
        throw new IllegalArgumentException("set one token or one token file");
      }
      token = Optional.of(new BearerToken(headers));
      return this;
    }

    /**
     * Allows sending the token without TLS. Anyone on the network path can then read it.
     *
     * @return this builder
     */
    public Builder allowTokenOverPlaintext() {
      tokenOverPlaintext = true;
      return this;
    }

    /**
     * Makes calls fail after their retries if no server can be reached. Otherwise they wait for one
     * until their deadline, and so survive a restart.
     *
     * @return this builder
     */
    public Builder failFast() {
      failFast = true;
      return this;
    }

    /**
     * Watches each server's health by the standard protocol, and sends no calls to servers that
     * report NOT_SERVING. The watch carries no token; a server or gateway that refuses it gets no
     * calls at all. Without health checking, a retry goes to the next server.
     *
     * @return this builder
     */
    public Builder healthChecking() {
      healthChecking = true;
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
      if (token.isPresent() && !safe && !tokenOverPlaintext) {
        throw new IllegalArgumentException(
            "the token would be sent to %s in plaintext; use TLS or allowTokenOverPlaintext()"
                .formatted(target));
      }
      if (credentials instanceof TlsChannelCredentials tls) {
        TlsCheck.check(tls);
      }
      ManagedChannel channel =
          Grpc.newChannelBuilder(target, credentials)
              .defaultServiceConfig(ServiceConfig.of(healthChecking))
              .disableServiceConfigLookUp() // a DNS TXT record could replace ours
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
