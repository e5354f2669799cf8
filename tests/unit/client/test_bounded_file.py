"""Tests of files that a caller names, which may be endless: each is refused in little memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from mnist37_client.files.bounded_file import SETTINGS_BYTES_MAX, read_bounded

pytestmark = pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")

ADDRESS_SPACE_BYTES = 4 * 2**30


def mnist37(*arguments: str, stdin: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that reaches no server, in bounded memory; without a stdin, it is closed."""
    command = [sys.executable, "-P", "-m", "mnist37_client.cli", *arguments]
    command += ["--address", "127.0.0.1:9", "--retry-for", "0"]
    if stdin is None:
        command = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    limits = (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES)
    return subprocess.run(
        command,
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limits),
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", "/dev/zero"),
        ("import", "/dev/zero"),
        ("loss", "--token-file", "/dev/zero"),
        ("loss", "--tls-ca", "/dev/zero"),
    ],
    ids=lambda arguments: arguments[0] + arguments[1],
)
def test_an_endless_file_is_refused(arguments: tuple[str, ...]) -> None:
    ended = mnist37(*arguments, stdin=subprocess.DEVNULL)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert "/dev/zero" in line
    assert "the file has more than" in line


def test_a_closed_stdin_is_a_picture_that_cannot_be_read() -> None:
    ended = mnist37("predict", "-")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert "not a picture that can be read" in ended.stderr


def test_a_file_of_the_most_bytes_is_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(SETTINGS_BYTES_MAX))
    assert read_bounded(file) == bytes(SETTINGS_BYTES_MAX)
    file.write_bytes(bytes(SETTINGS_BYTES_MAX + 1))
    with pytest.raises(OSError, match="the file has more than 1,048,576 bytes"):
        read_bounded(str(file))
