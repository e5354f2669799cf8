"""The server: it owns the live model, trains it, serves it and keeps its state.

__main__    the command line            config      what it can be told
app         puts the parts together     servicer    the RPCs: decode, one call, encode
wire        messages <-> values         status      exceptions -> gRPC status codes
live_model  the committed model         writer      one write at a time, exactly once
trainer     the model being trained     requests    what the writes ask for, and are answered
prediction  images -> probabilities     state       SQLite: all that must survive a crash
errors      what can be refused
"""
