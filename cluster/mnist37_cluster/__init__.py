"""A server and its followers on the nodes of a Ray cluster: Ray places and restarts them."""
