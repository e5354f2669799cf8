"""The live model: the queue of writes, the writer, the committer, and the snapshots for reads."""
