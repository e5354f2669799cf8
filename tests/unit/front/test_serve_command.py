"""Tests of the options that `mnist37 serve --front` hands to the owner of the model."""

from __future__ import annotations

import pytest
from mnist37_front.serve_command import serve
from mnist37_front.settings import Pair
from mnist37_server.errors import CannotStart


def owners_options(*options: str) -> tuple[str, ...]:
    pair = serve([*options], standalone_mode=False)
    assert isinstance(pair, Pair)
    return pair.owner_command[4:]


def test_the_owner_gets_the_options_that_are_given() -> None:
    given = ("--device", "cpu", "--state", ":memory:", "--data-root", "/images", "--download")
    assert set(owners_options(*given, "--address", "127.0.0.1:0")) == set(given)


@pytest.mark.parametrize(("value", "options"), [("true", ("--download",)), ("false", ())])
def test_a_variable_may_turn_a_flag_off(
    monkeypatch: pytest.MonkeyPatch, value: str, options: tuple[str, ...]
) -> None:
    monkeypatch.setenv("MNIST37_DOWNLOAD", value)
    assert owners_options() == options


def test_what_the_command_lacks_is_told_by_the_command_that_has_it() -> None:
    """Listen for other machines, where the page needs a password."""
    access = {"--tls-cert": "/cert", "--tls-key": "/key", "--tokens": "/tokens"}
    with pytest.raises(CannotStart, match=r"can reach 0\.0\.0\.0; add --password-file") as refused:
        owners_options(
            "--address", "0.0.0.0:0", *(part for each in access.items() for part in each)
        )
    assert "--password-file and --no-http are flags of `mnist37 front`" in str(refused.value)
