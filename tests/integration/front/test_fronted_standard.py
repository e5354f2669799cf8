"""The server's own tests of health and reflection, with a front before each server."""

from __future__ import annotations

from integration import test_standard as original
from integration.test_standard import *  # noqa: F403
from support.fronted import put_before_servers

put_before_servers(original)
