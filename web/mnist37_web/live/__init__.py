"""What the page shows of the server, and the runs that it keeps going."""
