"""The sockets of web, and what a connection may do."""
