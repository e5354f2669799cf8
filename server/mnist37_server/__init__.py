"""The server: it owns the live model, trains it, serves it and keeps its state; or it follows one.

__main__       the entry point         app           serves, from start to shutdown
config         what it can be told     errors        what it refuses

command_line/  the options, and the process
assembly/      the parts put together: an owner, or a follower
services/      the gRPC services: decode, one call into the engine, encode
access/        who may call
follower/      a copy of an owner's model
engine/        the live model: the order of writes, commits, what readers see
training/      what a write does to the parameters
storage/       the SQLite file
observability/ logs and metrics
rpc/           the machinery around grpcio
domain/        immutable values

Each of these imports from those below it alone; `make check` holds that.
"""
