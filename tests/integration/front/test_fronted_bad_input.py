"""The server's own tests of refusals, with a front before each server."""

from __future__ import annotations

from integration import test_bad_input as original
from integration.test_bad_input import *  # noqa: F403
from support.fronted import put_before_servers

put_before_servers(original)
