"""Decide which requests may enter, and bound their bodies."""
