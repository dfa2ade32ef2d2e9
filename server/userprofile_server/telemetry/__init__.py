"""What operators see of a process: the log and metrics. Knows neither gRPC nor stores."""
