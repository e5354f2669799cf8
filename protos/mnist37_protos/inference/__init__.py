"""The Open Inference Protocol: open_inference.proto and what protoc makes of it (`make protos`).

For the server alone. Other clients of the protocol bring messages of the same names, and a process
can hold only one of each.
"""
