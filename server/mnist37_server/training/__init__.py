"""The arithmetic of writes and of losses, and the device that does it."""
