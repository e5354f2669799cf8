"""A page on which the model learns, and its HTTP API: a client of the server like any other."""
