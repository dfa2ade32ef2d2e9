"""Users, independent of gRPC: the models, the documents that store them, and the lookup."""
