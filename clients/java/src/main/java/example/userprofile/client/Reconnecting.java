package example.userprofile.client;

import static java.util.concurrent.TimeUnit.MILLISECONDS;

import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;

/**
 * Shortens the backoff between connection attempts. gRPC's default, one second to two minutes,
 * would exceed every deadline after a longer outage, and grpc-java has no setting for it.
 */
final class Reconnecting {

  private static final Duration LONGEST = Duration.ofSeconds(1);

  private static final Executor LATER =
      CompletableFuture.delayedExecutor(LONGEST.toMillis(), MILLISECONDS);

  private Reconnecting() {}

  /** Makes the channel reconnect once a second while no server can be reached. */
  static void keep(ManagedChannel channel) {
    ConnectivityState state = channel.getState(false);
    if (state == ConnectivityState.TRANSIENT_FAILURE) {
      channel.resetConnectBackoff();
      LATER.execute(() -> keep(channel));
    } else if (state != ConnectivityState.SHUTDOWN) {
      channel.notifyWhenStateChanged(state, () -> LATER.execute(() -> keep(channel)));
    }
  }
}
