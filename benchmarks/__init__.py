"""Ratios that show how close the service is to its limits: `make bench`; details in README.md.

harness        pairs of measurements, their median and spread
report         the results as a table, JSON and a drawing
processes      servers and workers
baselines      the programs that the service is compared with
load/h2load    closed loops, for rates
load/http2     single calls and open loops, for latencies
slow_disk      a server whose syncs take longer
on_device      the tests and benchmarks for a CUDA device

Themes, in suites/:

predict        predictions a second, and their latencies
training       the cost of an epoch
both           training and predictions at the same time
commits        the cost of durability
small          start, memory and idle time
device         a CUDA device
"""
