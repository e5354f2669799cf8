"""Processes of Python on this machine: how they are started, watched and ended."""
