package example.userprofile.client;

import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.gson.reflect.TypeToken;
import example.userprofile.v1.UserProfileServiceGrpc;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Objects;

/**
 * gRPC's service config from the contract: load balancing and retries by method, the same for the
 * clients of all languages.
 */
final class ServiceConfig {

  private static final String CONTRACTS = "/userprofile/v1/service_config.json";

  private static final Gson GSON = new Gson();

  private ServiceConfig() {}

  /** Returns it as JSON values, where every number is a double, as gRPC requires. */
  static Map<String, Object> of(boolean healthChecking, int retries) {
    JsonObject config = read();
    for (var method : config.getAsJsonArray("methodConfig")) {
      JsonObject policy = method.getAsJsonObject().getAsJsonObject("retryPolicy");
      if (retries == 0) {
        method.getAsJsonObject().remove("retryPolicy");
      } else {
        int most = policy.get("maxAttempts").getAsInt();
        policy.addProperty("maxAttempts", Math.min(most, retries + 1));
      }
    }
    Map<String, Object> values =
        GSON.fromJson(config, new TypeToken<Map<String, Object>>() {}.getType());
    if (healthChecking) {
      values.put("healthCheckConfig", Map.of("serviceName", UserProfileServiceGrpc.SERVICE_NAME));
    }
    return values;
  }

  private static JsonObject read() {
    try (var json = Objects.requireNonNull(ServiceConfig.class.getResourceAsStream(CONTRACTS));
        var reader = new InputStreamReader(json, StandardCharsets.UTF_8)) {
      return GSON.fromJson(reader, JsonObject.class);
    } catch (IOException error) {
      throw new UncheckedIOException(error);
    }
  }
}
