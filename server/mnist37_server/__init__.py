"""The server: it owns the live model, trains it, serves it and keeps its state.

__main__      the command line             config        what it can be told
app           puts the parts together      servicer      the RPCs: decode, one call, encode
wire          messages <-> values          status        exceptions -> gRPC status codes
live_model    what readers see             snapshot      one version, whole, unchangeable
write_queue   whose turn it is, who waits  writer        one write at a time, exactly once
subscription  one caller's view of a write watch         a look at a run
trainer       the model being trained      requests      what is asked for, and the answers
predict_wire  Predict's messages as bytes  committer     commits what was computed, together
state         SQLite: what survives a crash history      versions and runs
id_filter     which request_ids are new
errors        what can be refused          journal       what happens to the model
logs          one event a line             monitor       answers Prometheus
metrics       counts the RPCs              histogram     values by their size
"""
