package example.userprofile.client;

import io.grpc.Channel;
import io.grpc.ConnectivityState;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import java.util.Optional;
import java.util.concurrent.TimeUnit;

/**
 * A channel, which has one connection to each address.
 *
 * @param channel the channel itself
 * @param calls the channel for calls, with the interceptors
 */
record Connection(ManagedChannel channel, Channel calls) {

  /** Returns gRPC's last connection error, if no server can be reached now. */
  Optional<StatusRuntimeException> connectionError() {
    if (channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE) {
      Context callers = Context.ROOT.attach(); // the caller's deadline has passed
      try { // In this state, gRPC fails the call at once and sends nothing.
        var unused =
            HealthGrpc.newBlockingStub(channel)
                .withDeadlineAfter(1, TimeUnit.SECONDS)
                .check(HealthCheckRequest.getDefaultInstance());
      } catch (StatusRuntimeException refusal) {
        if (refusal.getStatus().getCode() == Status.Code.UNAVAILABLE) {
          return Optional.of(refusal);
        }
      } finally {
        Context.ROOT.detach(callers);
      }
    }
    return Optional.empty();
  }
}
