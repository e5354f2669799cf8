"""Answer calls of gRPC over ASGI, by the services of the server: this runs in Envoy."""
