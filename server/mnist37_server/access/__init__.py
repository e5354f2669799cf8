"""Access control: TLS, tokens, roles, and the interceptor that checks them."""
