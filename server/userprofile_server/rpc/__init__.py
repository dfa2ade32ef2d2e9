"""Everything that depends on gRPC: the pipeline around each method, the error table, health and reflection."""
