"""The benchmark: this service beside what its users would take instead, on the same store, in one interleaved run."""
