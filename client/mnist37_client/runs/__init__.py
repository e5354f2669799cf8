"""The handles of training runs, for threads and for asyncio."""
