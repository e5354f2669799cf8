"""The machinery around grpcio: statuses, threads, limits."""
