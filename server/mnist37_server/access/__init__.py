"""Who may call: TLS, tokens, and the interceptor that asks for them."""
