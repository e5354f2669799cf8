"""The infrastructure around grpcio: statuses, thread pools and limits."""
