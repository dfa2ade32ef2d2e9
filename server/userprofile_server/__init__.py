"""The userprofile service: public user profiles over gRPC, from a store that also holds the password hashes."""
