"""The methods of both clients as exchanges without I/O, and what a client remembers of answers."""
