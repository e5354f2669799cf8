"""The server's own tests of limits, with a front before each server."""

from __future__ import annotations

from integration.test_limits import *  # noqa: F403
