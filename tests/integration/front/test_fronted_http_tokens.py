"""The tests of the HTTP API, test_tokens, with a front in place of `mnist37 web`."""

from __future__ import annotations

from integration.web import test_tokens as original
from integration.web.test_tokens import *  # noqa: F403
from support.fronted import put_in_place_of_web

put_in_place_of_web(original)

# The front takes a password too, but this test starts a web.
del test_with_a_password_the_token_is_the_users_name  # noqa: F821

# A front calls itself, by a socket file.
del test_a_token_does_not_go_to_another_machine_in_plain_text  # noqa: F821
