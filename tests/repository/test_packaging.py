"""What is installed: the wheel, its needs, and that the client needs no torch."""

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
# Of the README: of a new model that was trained for 20 epochs.
DIGEST = re.findall(r"^digest ([0-9a-f]{64})$", (ROOT / "README.md").read_text(), re.MULTILINE)[0]


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


class Environment:
    """An environment of its own, with what is installed there and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._env = folder / "env"
        venv.create(self._env, with_pip=True)

    def install(self, what: str) -> None:
        constraints = ("--constraint", str(ROOT / "constraints.txt"))
        self.run("python", "-m", "pip", "install", "--quiet", *constraints, what, check=True)

    def run(self, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        bare = {name: value for name, value in os.environ.items() if not name.startswith("MNIST37")}
        bare.pop("PYTHONPATH", None)
        return subprocess.run(
            [str(self._env / "bin" / command[0]), *command[1:]],
            capture_output=True,
            text=True,
            check=check,
            cwd=self.folder,
            env=bare,
        )

    def size(self) -> int:
        """Bytes of what is installed, without pip."""
        (site,) = (self._env / "lib").glob("python3*/site-packages")
        files = [file for file in site.rglob("*") if file.is_file()]
        return sum(f.stat().st_size for f in files if f.relative_to(site).parts[0] != "pip")


# Trains a model as the README's demonstration does, and draws another one.
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
    refused = run("mnist37", "serve")
    assert refused.returncode != 0
    assert "pip install 'mnist37[server]'" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert environment.size() < 200e6

    environment.install(f"{wheel}[serve-cpu]")
    assert environment.size() < 360e6
    assert run("python", "-c", "import torch").returncode == 1
    served = run("python", "-c", SERVE)
    assert served.returncode == 0, served.stderr
    assert served.stdout.split() == [DIGEST, Twin(7, 0.5).digest, "[0]"]
    for flags, said in (
        (("--device", "cuda"), "--device: CUDA needs torch, which is not installed; install it: "),
        (("--data-root", "."), "--data-root: needs torchvision, which is not installed: "),
    ):
        refused = run("mnist37", "serve", "--state", ":memory:", *flags)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1


def test_every_need_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needs = [*project["dependencies"], *(need for extra in extras.values() for need in extra)]
    pins = (ROOT / "constraints.txt").read_text().lower()
    for need in needs:
        if need.startswith("mnist37["):  # an extra of its own
            continue
        name = need.split(">")[0].split("=")[0]
        assert f"\n{name}==" in pins, name
    assert "\ntorch==2.14.1\n" in pins
    assert "://" not in pins
