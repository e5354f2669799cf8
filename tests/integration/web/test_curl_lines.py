"""The lines of docs/reference/http.md, run one after the other by a real curl."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from integration.web.conftest import TRAIN, Guarded
from mnist37_client import validation_images
from mnist37_client.local_server import LocalServer
from support.local_web import LocalWeb
from support.pages import ROOT

PAGE = ROOT / "docs" / "reference" / "http.md"
PASSWORD = "a password of a test"


def lines() -> list[str]:
    blocks = re.findall(r"^```sh\n(.+?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_each_line_of_the_page_works(guarded: Guarded, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(validation_images()[0][0].tobytes())
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    with (
        LocalServer("--device", "cpu") as server,
        LocalWeb(server.address) as web,
        LocalWeb(guarded.server.address, "--password-file", str(password)) as locked,
    ):
        environment = {
            "PATH": os.environ["PATH"],
            "WEB": web.url,
            "GUARDED": guarded.web.url,
            "LOCKED": locked.url,
            "TOKEN": TRAIN,
            "PASSWORD": PASSWORD,
            "IMAGE": str(image),
        }
        assert len(lines()) > 25
        for line in lines():
            process = subprocess.run(
                ["bash", "-o", "pipefail", "-c", line],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                check=False,
                timeout=20,
            )
            assert process.returncode == 0, (line, process.stderr)
            check(line, process.stdout)
    assert b'"binary_data_size":4' in (tmp_path / "answer.bin").read_bytes()


def check(line: str, output: bytes) -> None:
    """Assert that a line's output is JSON, and an error only where curl is not told to fail."""
    if "> " in line or "-o answer.bin" in line:
        assert output == b""
        return
    answers = [json.loads(answer) for answer in output.splitlines()]
    assert answers, line
    may_fail = "curl -s " in line
    assert all(("error" in answer) == may_fail for answer in answers), (line, output)
