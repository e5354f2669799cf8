"""The use of gRPC that both clients share, without I/O."""
