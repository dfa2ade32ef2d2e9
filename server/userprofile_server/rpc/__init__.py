"""All that knows of gRPC: the pipeline around each method, the error table, health and reflection."""
