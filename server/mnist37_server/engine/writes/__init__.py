"""The writes: their queue, the threads that execute and commit them, and who waits for them."""
