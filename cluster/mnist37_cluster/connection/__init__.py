"""The connection to Ray: a running one, or one that is started on this machine."""
