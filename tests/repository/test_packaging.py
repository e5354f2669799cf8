"""Tests of the wheel: its contents, its dependencies, and installs without torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from support.twin import Twin

ROOT = Path(__file__).parents[2]
# The digest in the README, of a new model after 20 epochs.
DIGEST = re.findall(r"^digest ([0-9a-f]{64})$", (ROOT / "README.md").read_text(), re.MULTILINE)[0]
LESSON = ROOT / "lesson" / "mnist37_lesson" / "lesson.ipynb"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_the_packages_and_the_images(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert packages == {
        *("mnist37", "mnist37_protos", "mnist37_server", "mnist37_client"),
        *("mnist37_web", "mnist37_front", "mnist37_cluster", "mnist37_lesson"),
    }
    assert {
        *("mnist37/images.npz", "mnist37_web/page/static/page.js"),
        "mnist37_lesson/lesson.ipynb",
    } <= set(names)
    assert sum(name.endswith("py.typed") for name in names) == 7
    assert any(name.endswith("IMAGES-LICENSE.md") for name in names)
    assert wheel.stat().st_size < 4e6


class Environment:
    """A virtual environment that has only the packages that a test installs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._env = folder / "env"
        venv.create(self._env, with_pip=True)

    def install(self, requirement: str) -> None:
        constraints = ("--constraint", str(ROOT / "constraints.txt"))
        self.run("python", "-m", "pip", "install", "--quiet", *constraints, requirement, check=True)

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MNIST37")
        }
        environment.pop("PYTHONPATH", None)
        return subprocess.run(
            [str(self._env / "bin" / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            check=check,
            cwd=self.folder,
            env=environment,
        )

    def size(self) -> int:
        """Return the size of the installed packages in bytes, without what a new venv has."""
        (site,) = (self._env / "lib").glob("python3*/site-packages")
        files = [file for file in site.rglob("*") if file.is_file()]
        of_venv = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
        return sum(
            file.stat().st_size
            for file in files
            if not file.relative_to(site).parts[0].startswith(of_venv)
        )


# Trains a model as the README's demonstration does, initializes another one, and checks that no
# file of torch is mapped into the server's process.
SERVE = """
from mnist37_client import Client
from mnist37_client.local_server import LocalServer
with LocalServer() as server, Client(server.address) as client:
    client.train(epochs=20).wait()
    print(client.get_model().digest)
    client.initialize(seed=7, std=0.5)
    print(client.get_model().digest)
    print(sorted(open(f"/proc/{server.process.pid}/maps").read().count(n) for n in ("torch",)))
"""


def test_the_base_install_is_the_client_and_with_serve_cpu_a_server_without_torch(
    wheel: Path, tmp_path: Path
) -> None:
    environment = Environment(tmp_path)
    environment.install(str(wheel))
    run = environment.run
    assert run("python", "-c", "import torch").returncode == 1
    assert run("python", "-c", "import mnist37_client").returncode == 0
    assert run("mnist37", "--help").returncode == 0
    process = run("mnist37", "serve")
    assert process.returncode != 0
    assert "pip install 'mnist37[server]'" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    process = run("mnist37", "lesson")
    assert process.returncode == 1
    assert process.stdout == "lesson.ipynb: copied\n"
    assert "pip install 'mnist37[lesson,server]'" in process.stderr
    assert len(process.stderr.splitlines()) == 1
    assert (tmp_path / "lesson.ipynb").read_bytes() == LESSON.read_bytes()
    process = run("mnist37", "cluster", "--replicas", "2")
    assert process.returncode != 0
    assert process.stderr == "mnist37: a cluster needs Ray: pip install 'mnist37[ray]'\n"
    assert environment.size() < 200e6

    environment.install(f"{wheel}[serve-cpu]")
    assert environment.size() < 360e6
    assert run("python", "-c", "import torch").returncode == 1
    process = run("python", "-c", SERVE)
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == [DIGEST, Twin(7, 0.5).digest, "[0]"]
    for flags, message in (
        (("--device", "cuda"), "--device: CUDA needs torch, which is not installed; install it: "),
        (("--data-root", "."), "--data-root: needs torchvision, which is not installed: "),
    ):
        process = run("mnist37", "serve", "--address=127.0.0.1:0", "--state=:memory:", *flags)
        assert process.returncode == 2
        assert message in process.stderr
        assert len(process.stderr.splitlines()) == 1


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [
        *project["dependencies"],
        *(requirement for extra in extras.values() for requirement in extra),
    ]
    pins = (ROOT / "constraints.txt").read_text().lower()
    for requirement in requirements:
        if requirement.startswith("mnist37["):  # an extra of its own
            continue
        name = requirement.split(">")[0].split("=")[0]
        assert f"\n{name}==" in pins, name
    assert "\ntorch==2.14.1\n" in pins
    assert "://" not in pins
