package userprofile.client;

import static java.util.Map.entry;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import userprofile.v1.UserProfileServiceGrpc;

/** How gRPC itself retries and spreads the calls. */
final class ServiceConfig {

  private static final Map<String, ?> RETRY_POLICY =
      Map.ofEntries(
          entry("maxAttempts", 5.0),
          entry("initialBackoff", "0.05s"),
          entry("maxBackoff", "2s"),
          entry("backoffMultiplier", 4.0),
          entry("retryableStatusCodes", List.of("UNAVAILABLE", "CANCELLED")));

  private static final Map<String, ?> METHODS =
      Map.of(
          "name",
          List.of(Map.of("service", UserProfileServiceGrpc.SERVICE_NAME)),
          "retryPolicy",
          RETRY_POLICY);

  /**
   * Each failure costs a token, each success returns one, and there are no retries below half of
   * maxTokens: a lost server among several is made up for, and so is for any time one that has lost
   * its store; a service that is down isn't hit with five times the load for long.
   */
  private static final Map<String, ?> THROTTLING = Map.of("maxTokens", 1000.0, "tokenRatio", 0.999);

  /** In the shape of JSON, as gRPC wants it: every number is a double. */
  static final Map<String, ?> DEFAULT =
      Map.of(
          "loadBalancingConfig", List.of(Map.of("round_robin", Map.of())),
          "retryThrottling", THROTTLING,
          "methodConfig", List.of(METHODS));

  /** The same with a watch of each server's health. */
  static final Map<String, ?> HEALTH_CHECKING = withHealthChecking();

  private ServiceConfig() {}

  private static Map<String, ?> withHealthChecking() {
    Map<String, Object> config = new HashMap<>(DEFAULT);
    config.put("healthCheckConfig", Map.of("serviceName", UserProfileServiceGrpc.SERVICE_NAME));
    return config;
  }
}
