"""Every refusal has a status code, and every such code an exception at the client."""

from __future__ import annotations

import pytest
from mnist37_client import errors as client_errors
from mnist37_server import errors as server_errors
from mnist37_server.status import CODES


def refusals() -> list[type[server_errors.Refused]]:
    return server_errors.Refused.__subclasses__()


@pytest.mark.parametrize("refusal", refusals())
def test_a_refusal_makes_the_round_trip(refusal: type[server_errors.Refused]) -> None:
    assert CODES[refusal] in client_errors.EXCEPTIONS


def test_no_two_refusals_look_alike_to_the_client() -> None:
    seen = {client_errors.EXCEPTIONS[CODES[refusal]] for refusal in refusals()}
    assert len(seen) == len(refusals())
