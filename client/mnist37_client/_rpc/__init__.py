"""What both clients do with gRPC, without the I/O."""
