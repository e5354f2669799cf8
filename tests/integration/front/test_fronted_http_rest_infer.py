"""The tests of the HTTP API, test_rest_infer, with a front in place of `mnist37 web`."""

from __future__ import annotations

from integration.web import test_rest_infer as original
from integration.web.test_rest_infer import *  # noqa: F403
from support.fronted import put_in_place_of_web

put_in_place_of_web(original)

# The front goes on with the version that it has until the other server's comes.
del test_a_restored_history_is_read_again  # noqa: F821
