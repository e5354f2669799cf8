"""A test that `mnist37 lesson` opens the notebook in a real Jupyter, which has its kernel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import make_lesson

CLI = (sys.executable, "-m", "mnist37_client.cli")
SETTINGS = {"ServerApp": {"allow_root": True, "port": 0}}  # a container's user may be root
# Jupyter opens a file that leads to the notebook.
BROWSER = '#!/bin/sh\ncp "${1#file://}" opened.part && mv opened.part opened\n'
URL = re.compile(r"(http://[\w.]+:\d+)/lab/tree/lesson\.ipynb\?token=(\w+)")
SECONDS_MAX = 120


def test_the_notebook_is_opened(tmp_path: Path) -> None:
    (tmp_path / "jupyter_server_config.json").write_text(json.dumps(SETTINGS))
    browser = tmp_path / "browser"
    browser.write_text(BROWSER)
    browser.chmod(0o700)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*CLI, "lesson", str(tmp_path / "mine")],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env={
                **os.environ,
                "BROWSER": str(browser),
                "JUPYTER_CONFIG_DIR": str(tmp_path),
                "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
                "JUPYTER_DATA_DIR": str(tmp_path / "data"),
            },
        )
    try:
        opened = tmp_path / "opened"
        deadline = time.monotonic() + SECONDS_MAX
        while not opened.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert opened.exists(), (tmp_path / "log").read_text()
        found = URL.search(opened.read_text())
        assert found, opened.read_text()
        server, token = found.groups()
        cells = fetch(server, token, "contents/lesson.ipynb")["content"]["cells"]
        assert [cell["source"] for cell in cells] == [
            cell.source for cell in make_lesson.make().cells
        ]
        kernels = fetch(server, token, "kernelspecs")["kernelspecs"]
        assert kernels["python3"]["spec"]["argv"][1:3] == ["-m", "ipykernel_launcher"]
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "mine" / "lesson.ipynb").read_bytes() == make_lesson.NOTEBOOK.read_bytes()


def fetch(server: str, token: str, resource: str) -> Any:
    """Return the answer of Jupyter's API."""
    headers = {"Authorization": f"token {token}"}
    request = urllib.request.Request(f"{server}/api/{resource}", headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS_MAX) as response:
        return json.load(response)
