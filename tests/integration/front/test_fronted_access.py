"""The server's own tests of tokens, roles and certificates, with a front before each server."""

from __future__ import annotations

from integration import test_access as original
from integration.test_access import *  # noqa: F403
from support.fronted import put_before_servers

put_before_servers(original)

# Envoy joins two headers of one name; the result is no token, and the call is refused.
del test_of_two_tokens_the_last_counts  # noqa: F821
