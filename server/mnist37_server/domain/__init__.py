"""Immutable values without I/O: commands, results, snapshots."""
