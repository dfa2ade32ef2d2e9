package example.userprofile.client;

import static java.util.Map.entry;

import example.userprofile.v1.BatchGetUsersRequest;
import example.userprofile.v1.BatchGetUsersResponse;
import example.userprofile.v1.UserProfileServiceGrpc;
import io.grpc.StatusRuntimeException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.function.Function;
import java.util.function.Supplier;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/** A batch of usernames, whose call is in flight. */
final class Batch {

  private final List<String> usernames;
  private final Call call;
  private final @Nullable Future<BatchGetUsersResponse> response;

  Batch(List<String> usernames, Call call, RequestOptions options) {
    this.usernames = usernames;
    this.call = call;
    var request = BatchGetUsersRequest.newBuilder();
    usernames.stream()
        .distinct()
        .filter(username -> Usernames.problem(username).isEmpty())
        .forEach(request::addUsernames);
    options.readMask().ifPresent(request::setReadMask);
    response =
        request.getUsernamesCount() == 0
            ? null
            : call.on(UserProfileServiceGrpc.newFutureStub(call.connection().calls()))
                .batchGetUsers(request.build());
  }

  /**
   * Returns each username with its result, in order.
   *
   * @throws UserProfileException if the call failed as a whole
   */
  Stream<Map.Entry<String, UserResult>> results() {
    var received = new HashMap<String, BatchGetUsersResponse.Result>();
    for (var result : await().getResultsList()) {
      received.put(result.getUsername(), result);
    }
    var nothing = BatchGetUsersResponse.Result.getDefaultInstance();
    return each(username -> toResult(received.getOrDefault(username, nothing), username));
  }

  /** Like {@link #results}, with the failure of the call for each username. */
  Stream<Map.Entry<String, UserResult>> resultsOrFailure() {
    try {
      return results();
    } catch (UserProfileException error) {
      return each(username -> error.failure());
    }
  }

  void cancel() {
    if (response != null) {
      response.cancel(true);
    }
  }

  private Stream<Map.Entry<String, UserResult>> each(Function<String, UserResult> sent) {
    return usernames.stream()
        .map(
            username -> {
              Supplier<UserResult> result = () -> sent.apply(username);
              return entry(
                  username,
                  Usernames.problem(username).map(UserResult.class::cast).orElseGet(result));
            });
  }

  private UserResult toResult(BatchGetUsersResponse.Result result, String username) {
    if (result.hasError()) {
      return Failures.from(result.getError(), null, call.requestId());
    }
    if (result.hasUser() && result.getUser().getUsername().equals(username)) {
      return User.from(result.getUser());
    }
    return Failures.unreadable(call.requestId());
  }

  private BatchGetUsersResponse await() {
    if (response == null) {
      return BatchGetUsersResponse.getDefaultInstance();
    }
    try {
      return response.get();
    } catch (ExecutionException error) {
      if (error.getCause() instanceof StatusRuntimeException status) {
        throw call.failed(status);
      }
      throw new IllegalStateException(error);
    } catch (InterruptedException interrupted) {
      cancel();
      Thread.currentThread().interrupt();
      throw call.cancelled("The calling thread was interrupted.", null);
    }
  }
}
