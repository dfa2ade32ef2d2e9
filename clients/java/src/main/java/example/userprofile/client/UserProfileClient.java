package example.userprofile.client;

import example.userprofile.v1.GetUserRequest;
import example.userprofile.v1.UserProfileServiceGrpc;
import io.grpc.ChannelCredentials;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.health.v1.HealthGrpc;
import java.util.Collection;
import java.util.Collections;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Supplier;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;

/**
 * Client of a userprofile service.
 *
 * <p>Safe to share between threads: make one and close it at the end. The first call connects it;
 * lost connections are re-established in the background. Calls wait for a server until their
 * deadline. Calls that fail with UNAVAILABLE, or that an overloaded server refuses, are retried
 * unless the server forbids it.
 *
 * <p>Calls that fail throw {@link UserProfileException}, and after {@link #close} {@link
 * IllegalStateException}.
 */
public final class UserProfileClient implements AutoCloseable {

  private static final HealthCheckRequest CHECK =
      HealthCheckRequest.newBuilder().setService(UserProfileServiceGrpc.SERVICE_NAME).build();

  private final Connections connections;
  private final Supplier<Connection> single;
  private final Calls calls;

  UserProfileClient(Connections connections, Supplier<Connection> single, Calls calls) {
    this.connections = connections;
    this.single = single;
    this.calls = calls;
  }

  /**
   * Returns a builder of a client.
   *
   * @param target the service's address: {@code host:port}, or whatever else gRPC resolves
   * @param credentials {@link TlsChannelCredentials}, optionally with your own CA or a client
   *     certificate, or {@link io.grpc.InsecureChannelCredentials} for plaintext
   * @return the builder
   */
  public static UserProfileClientBuilder builder(String target, ChannelCredentials credentials) {
    return new UserProfileClientBuilder(target, credentials);
  }

  /**
   * Returns the user with this username.
   *
   * @param username the name, compared byte by byte
   * @return the user
   * @throws UserProfileException if the call fails, or there is no such user
   */
  public User getUser(String username) {
    return getUser(username, RequestOptions.DEFAULT);
  }

  /**
   * Returns the user with this username.
   *
   * @param username the name, compared byte by byte
   * @param options for example the fields to return
   * @return the user
   * @throws UserProfileException if the call fails, or there is no such user
   */
  public User getUser(String username, RequestOptions options) {
    Call call = calls.begin(connections, connections.next(), options);
    Usernames.problem(username)
        .ifPresent(
            problem -> {
              throw new UserProfileException(problem);
            });
    var request = GetUserRequest.newBuilder().setUsername(username);
    options.readMask().ifPresent(request::setReadMask);
    try {
      var stub = call.on(UserProfileServiceGrpc.newBlockingStub(call.connection().calls()));
      var response = stub.getUser(request.build());
      if (response.hasUser() && response.getUser().getUsername().equals(username)) {
        return User.from(response.getUser());
      }
    } catch (StatusRuntimeException error) {
      throw call.failed(error);
    }
    throw new UserProfileException(Failures.unreadable(call.requestId()));
  }

  /**
   * Returns the user with this username, if there is one.
   *
   * @param username the name, compared byte by byte
   * @return the user, or empty if there is no such user
   * @throws UserProfileException if the call fails
   */
  public Optional<User> findUser(String username) {
    return findUser(username, RequestOptions.DEFAULT);
  }

  /**
   * Returns the user with this username, if there is one.
   *
   * @param username the name, compared byte by byte
   * @param options for example the fields to return
   * @return the user, or empty if there is no such user
   * @throws UserProfileException if the call fails
   */
  public Optional<User> findUser(String username, RequestOptions options) {
    try {
      return Optional.of(getUser(username, options));
    } catch (UserProfileException error) {
      if (error.failure().isUserNotFound()) {
        return Optional.empty();
      }
      throw error;
    }
  }

  /**
   * Returns a result for each of any number of usernames. A username that has no user, or can't be
   * read, does not affect the others. Each call requests 100 users, and up to four calls are in
   * flight.
   *
   * @param usernames the usernames
   * @return the results by username, in order
   * @throws UserProfileException if a call fails as a whole; no further calls are made
   */
  public Map<String, UserResult> getUsers(Collection<String> usernames) {
    return getUsers(usernames, RequestOptions.DEFAULT);
  }

  /**
   * Returns a result for each of any number of usernames, as {@link #getUsers(Collection)} does.
   *
   * @param usernames the usernames
   * @param options for example the fields to return; they apply to each call
   * @return the results by username, in order
   * @throws UserProfileException if a call fails as a whole; no further calls are made
   */
  public Map<String, UserResult> getUsers(Collection<String> usernames, RequestOptions options) {
    var results = new LinkedHashMap<String, UserResult>();
    try (var batches = batches(new LinkedHashSet<>(usernames).iterator(), options)) {
      batches.forEachRemaining(
          batch -> batch.results().forEach(it -> results.put(it.getKey(), it.getValue())));
    }
    return Collections.unmodifiableMap(results);
  }

  /**
   * Returns a result for each username, in order and as they are consumed, for more usernames than
   * fit into memory. At most 400 are requested ahead. If a call fails as a whole, its failure is
   * the result of each of its usernames; the stream goes on.
   *
   * @param usernames the usernames, endless too
   * @return the usernames with their results; closing the stream cancels the calls in flight
   */
  public Stream<Map.Entry<String, UserResult>> streamUsers(Stream<String> usernames) {
    return streamUsers(usernames, RequestOptions.DEFAULT);
  }

  /**
   * Returns a result for each username, as {@link #streamUsers(Stream)} does.
   *
   * @param usernames the usernames, endless too
   * @param options for example the fields to return; they apply to each call
   * @return the usernames with their results; closing the stream cancels the calls in flight
   */
  public Stream<Map.Entry<String, UserResult>> streamUsers(
      Stream<String> usernames, RequestOptions options) {
    Batches batches = batches(usernames.iterator(), options);
    return StreamSupport.stream(batches, false)
        .flatMap(Batch::resultsOrFailure)
        .onClose(batches::close)
        .onClose(usernames::close);
  }

  /**
   * Returns whether one of the target's servers reports SERVING, by the standard health checking
   * protocol. It asks over a connection of its own, and doesn't wait for a server.
   *
   * @return whether it does
   * @throws UserProfileException if the health check fails
   */
  public boolean checkHealth() {
    return checkHealth(RequestOptions.DEFAULT);
  }

  /**
   * Returns whether one of the target's servers reports SERVING, as {@link #checkHealth()} does.
   *
   * @param options for example a timeout
   * @return whether it does
   * @throws UserProfileException if the health check fails
   */
  public boolean checkHealth(RequestOptions options) {
    // Not over the connections for calls: with health checking they lead to no server that isn't
    // serving.
    return connections.alone(single, connection -> checkHealth(connection, options));
  }

  private boolean checkHealth(Connection connection, RequestOptions options) {
    Call call = calls.withoutWaiting().begin(connections, connection, options);
    try {
      var stub = call.on(HealthGrpc.newBlockingStub(connection.calls()));
      return stub.check(CHECK).getStatus() == ServingStatus.SERVING;
    } catch (StatusRuntimeException error) {
      throw call.failed(error);
    }
  }

  /**
   * Cancels the calls in progress, and returns when the connections are closed, after five seconds
   * at most.
   */
  @Override
  public void close() {
    connections.close();
  }

  private Batches batches(Iterator<String> usernames, RequestOptions options) {
    return new Batches(
        usernames,
        batch -> new Batch(batch, calls.begin(connections, connections.next(), options), options));
  }
}
