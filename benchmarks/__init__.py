"""Ratios that say how near the limit the service is: `make bench`; benchmarks/README.md says more.

harness    pairs, their median and spread    report      table, JSON, drawing
processes  servers and workers               h2load      closed loops, for rates
baselines  what it is compared with          http2       single calls and open loops, for latencies
predict    answers a second, and how fast    training    what an epoch costs
both       training while serving            commits     what it costs that nothing is lost
small      starting, memory, idling          slow_disk   a server whose syncs take longer
"""
