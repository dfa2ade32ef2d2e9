"""Authentication and authorization: tokens, certificates, and the policy. Independent of gRPC."""
