"""The tests of the HTTP API, test_rpc_json, with a front in place of `mnist37 web`."""

from __future__ import annotations

from integration.web import test_rpc_json as original
from integration.web.test_rpc_json import *  # noqa: F403
from support.fronted import put_in_place_of_web

put_in_place_of_web(original)
