"""A check of followers under faults: recorded answers against what was written."""
