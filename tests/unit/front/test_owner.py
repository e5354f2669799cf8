"""Tests of the file of tokens that a front writes for the owner that it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from mnist37_front.owner import OwnerTokens
from mnist37_server.access.roles import Role
from mnist37_server.access.tokens import Tokens
from mnist37_server.errors import CannotStart
from support.guarding import secret, tokens_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the operator's file."""
    return tokens_file(tmp_path / "operators", "predict")


@pytest.fixture
def tokens(file: Path, tmp_path: Path) -> OwnerTokens:
    folder = tmp_path / "front"
    folder.mkdir()
    return OwnerTokens(file, folder)


def test_the_owner_knows_the_operators_tokens_and_the_fronts(tokens: OwnerTokens) -> None:
    found = Tokens(tokens.file)
    assert found.role_of(secret("predict")) is Role.PREDICT
    assert found.role_of(tokens.token_file.read_text()) is Role.FOLLOW


def test_the_owner_gets_a_file_that_has_changed(tokens: OwnerTokens, file: Path) -> None:
    tokens_file(file, "train")
    tokens.refresh()
    assert Tokens(tokens.file).role_of(secret("train")) is Role.TRAIN


def test_the_owner_never_sees_an_invalid_file(tokens: OwnerTokens, file: Path) -> None:
    """Let the front alone refuse it, by the name that the operator knows."""
    before = tokens.file.read_bytes()
    file.write_text("nonsense\n")
    tokens.refresh()
    assert tokens.file.read_bytes() == before
    with pytest.raises(CannotStart, match=f"--tokens: {file}, line 1: must be"):
        OwnerTokens(file, tokens.file.parent)
