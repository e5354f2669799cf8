"""What is installed: the wheel, its needs, and that the client needs no torch."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_four_packages_and_the_images(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert packages == {"mnist37", "mnist37_protos", "mnist37_server", "mnist37_client"}
    assert "mnist37/images.npz" in names
    assert sum(name.endswith("py.typed") for name in names) == 4
    assert any(name.endswith("IMAGES-LICENSE.md") for name in names)
    assert wheel.stat().st_size < 4e6


def test_the_base_install_is_the_client_without_torch(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own, with what this one has of the base's needs and nothing else."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([python, *install, str(wheel)], check=True)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("MNIST37")}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(tmp_path / "env" / "bin" / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=bare,
        )

    assert run("python", "-c", "import torch").returncode == 1
    assert run("python", "-c", "import mnist37_client").returncode == 0
    assert run("mnist37", "--help").returncode == 0
    refused = run("mnist37", "serve")
    assert refused.returncode != 0
    assert "pip install 'mnist37[server]'" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    site = next((tmp_path / "env" / "lib").glob("python3*/site-packages"))
    pip = sum(f.stat().st_size for f in (site / "pip").rglob("*") if f.is_file())
    size = sum(f.stat().st_size for f in site.rglob("*") if f.is_file()) - pip
    assert size < 200e6


def test_every_need_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needs = [*project["dependencies"], *(need for extra in extras.values() for need in extra)]
    pins = (ROOT / "constraints.txt").read_text().lower()
    for need in needs:
        name = need.split(">")[0].split("=")[0]
        assert f"\n{name}==" in pins, name
    assert "\ntorch==2.14.1\n" in pins
    assert "://" not in pins
