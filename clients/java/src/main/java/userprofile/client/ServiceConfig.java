package userprofile.client;

import static java.util.Map.entry;

import java.util.List;
import java.util.Map;
import userprofile.v1.UserProfileServiceGrpc;

/** How gRPC itself retries and spreads the calls. */
final class ServiceConfig {

  private static final Map<String, ?> RETRY_POLICY =
      Map.ofEntries(
          entry("maxAttempts", 4.0),
          entry("initialBackoff", "0.05s"),
          entry("maxBackoff", "1s"),
          entry("backoffMultiplier", 2.0),
          entry("retryableStatusCodes", List.of("UNAVAILABLE")));

  private static final Map<String, ?> METHODS =
      Map.of(
          "name",
          List.of(Map.of("service", UserProfileServiceGrpc.SERVICE_NAME)),
          "retryPolicy",
          RETRY_POLICY);

  /**
   * A failure takes a token, an answer gives a tenth of one back, and at half of them there are no
   * retries: one lost server among several is made up for, a service that is down isn't hit with
   * four times the load for long.
   */
  private static final Map<String, ?> THROTTLING = Map.of("maxTokens", 1000.0, "tokenRatio", 0.1);

  /** In the shape of JSON, as gRPC wants it: every number is a double. */
  static final Map<String, ?> DEFAULT =
      Map.of(
          "loadBalancingConfig", List.of(Map.of("round_robin", Map.of())),
          "healthCheckConfig", Map.of("serviceName", UserProfileServiceGrpc.SERVICE_NAME),
          "retryThrottling", THROTTLING,
          "methodConfig", List.of(METHODS));

  private ServiceConfig() {}
}
