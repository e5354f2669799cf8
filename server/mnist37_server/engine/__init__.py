"""The live model: the order of writes, their commits, and what readers see."""
