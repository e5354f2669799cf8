"""Tests of secrets in files: what is read, and what is refused in words."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from mnist37_client.errors import InvalidInput
from mnist37_client.files.secret_file import read_secret


@pytest.mark.parametrize(
    "content",
    [
        b"a secret",
        b"a secret\r\n",
        codecs.BOM_UTF8 + b" a secret\n",
        codecs.BOM_UTF16_LE + "a secret\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "a secret".encode("utf-16-be"),
    ],
)
def test_a_secret_is_the_text_of_the_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert read_secret("--password-file", file) == "a secret"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty; it must hold the secret"),
        (b" \n", "is empty; it must hold the secret"),
        (b"\xff\x00", "is not UTF-8; save it as UTF-8"),
        (bytes(2**21), "the file has more than"),
    ],
)
def test_what_is_no_secret_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=f"^--password-file: .*{problem}"):
        read_secret("--password-file", file)


@pytest.mark.parametrize("secret", ["f" * 64, "a-secret-of-16-c", "x" * 300])
def test_a_secret_in_place_of_its_file_is_not_printed(secret: str) -> None:
    with pytest.raises(InvalidInput, match=r"^--token-file: there is no such file; ") as refused:
        read_secret("--token-file", secret)
    assert secret[:8] not in str(refused.value)


@pytest.mark.parametrize("name", ["nothing", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match=f"--password-file: cannot read {tmp_path / name}: "):
        read_secret("--password-file", tmp_path / name)
