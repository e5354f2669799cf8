"""How the sources lie: no circles, no module that is too long."""

from __future__ import annotations

from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "mnist37": "mnist37",
    "mnist37_server": "server/mnist37_server",
    "mnist37_client": "client/mnist37_client",
    "benchmarks": "benchmarks",
}
MOST_LINES = 300  # of a module
MOST_MODULES = 10  # of a folder
LONG = {"mnist37/kernels.py"}  # all loops, which share their parts


def sources(package: str) -> list[Path]:
    return list((ROOT / PACKAGES[package]).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_longer_than_a_reader_takes_in_at_once(package: str) -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in sources(package)
        if len(path.read_text().splitlines()) > MOST_LINES
    }
    assert long <= LONG


@pytest.mark.parametrize("package", PACKAGES)
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    graph = grimp.build_graph(package, cache_dir=None)
    waiting = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    # A package and what it holds are told apart: its __init__ is a module like any other.
    while ready := {module for module, imports in waiting.items() if not imports & waiting.keys()}:
        waiting = {module: imports for module, imports in waiting.items() if module not in ready}
    assert not waiting


def test_the_servers_folders_hold_few_modules() -> None:
    server = ROOT / PACKAGES["mnist37_server"]
    folders = [path for path in server.iterdir() if (path / "__init__.py").exists()]
    assert {folder.name for folder in folders} == {
        *("services", "access", "engine", "training", "storage", "observability", "rpc", "domain")
    }
    for folder in (server, *folders):
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= (5 if folder == server else MOST_MODULES), folder
