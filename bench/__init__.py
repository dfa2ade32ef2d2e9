"""The benchmark: compares this service with its alternatives, on the same store, in one interleaved run."""
