import example.userprofile.client.UserProfileClient;
import io.grpc.InsecureChannelCredentials;
import io.grpc.opentelemetry.GrpcOpenTelemetry;
import io.opentelemetry.exporter.logging.LoggingMetricExporter;
import io.opentelemetry.exporter.logging.LoggingSpanExporter;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.metrics.SdkMeterProvider;
import io.opentelemetry.sdk.metrics.export.PeriodicMetricReader;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.SimpleSpanProcessor;

/** Metrics and spans of the calls, by OpenTelemetry. */
public final class Observed {

  private Observed() {}

  public static void main(String[] arguments) {
    String target = System.getenv().getOrDefault("USERPROFILE_TARGET", "localhost:50051");
    var metrics = PeriodicMetricReader.create(LoggingMetricExporter.create());
    var spans = SimpleSpanProcessor.create(LoggingSpanExporter.create());
    try (var telemetry =
            OpenTelemetrySdk.builder()
                .setMeterProvider(SdkMeterProvider.builder().registerMetricReader(metrics).build())
                .setTracerProvider(SdkTracerProvider.builder().addSpanProcessor(spans).build())
                .build();
        var client =
            UserProfileClient.builder(target, InsecureChannelCredentials.create())
                .configureChannel(
                    GrpcOpenTelemetry.newBuilder().sdk(telemetry).build()::configureChannelBuilder)
                .build()) {
      System.out.println(client.getUser("johndoe").fullName().orElse("nameless"));
    }
  }
}
