"""mnist37.v1: mnist37.proto and what protoc makes of it (`make protos`)."""
