"""The requests for writes: their values, ranges and fingerprints."""
