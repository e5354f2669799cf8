"""The gRPC services: decode a message, make one call into the engine, encode the answer."""
