"""Fixtures of the lesson's tests: the notebook as it is committed, and as a run here makes it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import make_lesson
import nbformat
import pytest
from nbformat import NotebookNode

# Run by IPython when it starts. It refuses what would leave this machine.
OFFLINE = """
import sys

def refuse(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise PermissionError(f"the lesson calls {address}")
    elif event == "socket.getaddrinfo" and arguments[0] not in (None, "127.0.0.1", "localhost"):
        raise PermissionError(f"the lesson asks for {arguments[0]}")

sys.addaudithook(refuse)
"""
# Of torch and MKL. Wider ones, where a machine has them, give sums with other last digits.
INSTRUCTIONS = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
NOBODY = "http://127.0.0.1:9"  # a proxy that is not there, for programs that are not Python


@pytest.fixture(scope="session")
def committed() -> NotebookNode:
    notebook: NotebookNode = nbformat.read(make_lesson.NOTEBOOK, as_version=4)
    return notebook


@pytest.fixture(scope="session")
def executed(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    """Return the notebook after a run without a network, and without settings of this user."""
    if shutil.which("curl") is None:
        pytest.skip("the lesson calls curl; it is not installed")
    startup = tmp_path_factory.mktemp("ipython") / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "offline.py").write_text(OFFLINE)
    notebook = make_lesson.make()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("MNIST37_", "MPL"))]:
            patch.delenv(name)
        for name, value in INSTRUCTIONS.items():
            patch.setenv(name, value)
        patch.setenv("IPYTHONDIR", str(startup.parents[1]))
        patch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            patch.setenv(name, NOBODY)
        make_lesson.run(notebook)
    return notebook


@pytest.fixture
def notes() -> str:
    """Return the lesson's source."""
    return Path(make_lesson.SOURCE).read_text()
