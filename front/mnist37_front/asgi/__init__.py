"""What runs in Envoy: calls of gRPC, answered by the services of the server, over ASGI."""
