"""Tests of what the system refuses a command: each refusal is named for what it is."""

from __future__ import annotations

import errno
import os
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
from mnist37_client.cli import refusals
from mnist37_client.cli.safetensors_file import save_model
from mnist37_client.errors import InvalidInput, Mnist37Error, Unavailable
from mnist37_client.local_server import LocalServer
from mnist37_client.processes import python_process
from mnist37_client.results import Model

NEEDS = "the system refuses what the command needs: "


def failed_write() -> OSError:
    """Return the error of a pipe that takes no more, as Python raises it."""
    read_fd, write_fd = os.pipe()
    os.set_blocking(write_fd, False)
    try:
        with os.fdopen(write_fd, "wb") as pipe:
            while True:
                pipe.write(bytes(100_000))
    except BlockingIOError as error:
        return error
    finally:
        os.close(read_fd)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "full"), "the output cannot be written: full"),
        (OSError(errno.EACCES, "not yours", "/root/x"), "/root/x: not yours"),
        (OSError(errno.EMFILE, "too many"), f"{NEEDS}too many"),
        (OSError(errno.EAGAIN, "no process"), f"{NEEDS}no process"),
        (OSError("a library"), "the output cannot be written: a library"),
        (MemoryError(), f"{NEEDS}no memory is left"),
        (RuntimeError("can't start new thread"), f"{NEEDS}it lets this user start no thread more"),
        (RuntimeError("else"), None),
        (ValueError("else"), None),
    ],
    ids=repr,
)
def test_a_refusal_of_the_system_has_its_own_text(error: Exception, text: str | None) -> None:
    assert refusals.explain(error) == text


def test_an_output_that_takes_no_more_is_no_process_that_does_not_start() -> None:
    assert str(refusals.explain(failed_write())).startswith("the output cannot be written: ")


def test_a_model_that_cannot_be_written_whole_leaves_no_file(tmp_path: Path) -> None:
    model = Model(np.zeros(784, np.float32), np.float32(0), 1, "digest", "cpu")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(InvalidInput, match="cannot be written: File too large"):
            save_model(model, tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_python_that_may_not_be_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.touch(mode=0o600)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(Mnist37Error, match=f"{program} cannot be run: Permission denied"):
        python_process.execute(["python"])

    class Server(LocalServer):
        command = (str(program),)

    with pytest.raises(Unavailable, match="the server did not start: Permission denied"):
        Server()
