"""The server: it owns the live model, trains it, serves it and keeps its state.

__main__       the entry point         command_line  the options
app            puts the parts together config        what it can be told
address        where it can listen     errors        what it refuses
process        what it inherits: streams and signals

services/      the gRPC services: decode, one call into the engine, encode
access/        who may call
engine/        the live model: the order of writes, commits, what readers see
training/      what a write does to the parameters
storage/       the SQLite file
observability/ logs and metrics
rpc/           the machinery around grpcio
domain/        immutable values

Each of these imports from those below it alone; `make check` holds that.
"""
