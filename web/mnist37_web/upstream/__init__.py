"""The server, as web calls it: connections and callers."""
