"""Tests of the sources' structure: no import cycles, no long modules, few modules in a folder."""

from __future__ import annotations

from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "mnist37": "mnist37",
    "mnist37_server": "server/mnist37_server",
    "mnist37_client": "client/mnist37_client",
    "mnist37_web": "web/mnist37_web",
    "mnist37_front": "front/mnist37_front",
    "mnist37_cluster": "cluster/mnist37_cluster",
    "benchmarks": "benchmarks",
}
LINES_MAX = 300  # of a module
MODULES_MAX = 10  # of a folder
LONG_MODULES = {"mnist37/kernels.py"}  # its loops share functions, so they stay in one module


def sources(package: str) -> list[Path]:
    return list((ROOT / PACKAGES[package]).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_too_long(package: str) -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in sources(package)
        if len(path.read_text().splitlines()) > LINES_MAX
    }
    assert long <= LONG_MODULES


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_cycle(package: str) -> None:
    graph = grimp.build_graph(package, cache_dir=None)
    rest = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    # A package and its modules are separate nodes: its __init__ is a module like any other.
    while leaves := {module for module, imports in rest.items() if not imports & rest.keys()}:
        rest = {module: imports for module, imports in rest.items() if module not in leaves}
    assert not rest


def folders(package: str) -> dict[str, int]:
    """Return the number of modules in each folder of a package, by its path in the package."""
    top = ROOT / PACKAGES[package]
    folders = [path.parent for path in top.rglob("__init__.py")]
    return {
        str(folder.relative_to(top)): len(list(folder.glob("*.py"))) - 1  # without __init__
        for folder in folders
    }


@pytest.mark.parametrize(
    "package",
    ["mnist37_server", "mnist37_client", "mnist37_web", "mnist37_front", "mnist37_cluster"],
)
def test_the_folders_hold_few_modules(package: str) -> None:
    assert {folder: n for folder, n in folders(package).items() if n > MODULES_MAX} == {}


def test_the_servers_folders() -> None:
    server = folders("mnist37_server")
    assert server["."] <= 5
    assert {folder for folder in server if "/" not in folder} == {
        *(".", "command_line", "assembly", "services", "access", "follower", "engine", "training"),
        *("storage", "observability", "rpc", "domain"),
    }


def test_the_clients_folders() -> None:
    assert set(folders("mnist37_client")) == {
        *(".", "runs", "processes", "pictures", "files", "cli", "cli/commands"),
        *("_rpc", "_rpc/transport", "_rpc/methods", "_rpc/messages", "_rpc/failures"),
    }
