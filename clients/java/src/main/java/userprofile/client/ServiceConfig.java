package userprofile.client;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import example.userprofile.v1.UserProfileServiceGrpc;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/**
 * gRPC's service config from the contract: load balancing and retries, the same for the clients of
 * all languages.
 */
final class ServiceConfig {

  private static final String CONTRACTS = "/userprofile/v1/service_config.json";

  private ServiceConfig() {}

  /** Returns it as JSON values, where every number is a double, as gRPC requires. */
  static Map<String, ?> of(boolean healthChecking) {
    Map<String, Object> config = read();
    if (healthChecking) {
      config.put("healthCheckConfig", Map.of("serviceName", UserProfileServiceGrpc.SERVICE_NAME));
    }
    return config;
  }

  private static Map<String, Object> read() {
    try (var json = ServiceConfig.class.getResourceAsStream(CONTRACTS);
        var reader = new InputStreamReader(json, StandardCharsets.UTF_8)) {
      return new Gson().fromJson(reader, new TypeToken<Map<String, Object>>() {}.getType());
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
