"""The pools of threads in which grpcio runs the handlers."""
