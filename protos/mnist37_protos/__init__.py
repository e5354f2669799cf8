"""The contract of mnist37 as Protocol Buffers: one folder a version."""
