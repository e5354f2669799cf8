"""The server, as web calls it: connections, callers, live state."""
