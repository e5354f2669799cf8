"""The description of the HTTP API for tools: OpenAPI."""
