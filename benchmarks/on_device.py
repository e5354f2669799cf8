"""python -m benchmarks.on_device: the tests and benchmarks for a CUDA device, in one go.

By the Python that runs it, with what that has, without network; mnist37 itself need not be
installed. The results are written with the device's name.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from benchmarks import processes
from benchmarks.processes import ROOT

SOURCES = [str(ROOT / folder) for folder in ("", "protos", "server", "client")]
# The first shows whether the kernels compile, which needs no device.
TESTS = {
    "compiled": ["tests/unit/mnist37/test_compiled_kernels.py"],
    "arithmetic": ["tests/unit/mnist37/test_training.py"],
    "server": ["tests/integration/test_cuda.py"],
}

# What is imported, and what is to be installed for it.
NEEDED = {
    "torch": "torch",
    "triton": "triton",
    "numpy": "numpy",
    "numba": "numba",
    "grpc": "grpcio",
    "grpc_status": "grpcio-status",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "pythonjsonlogger": "python-json-logger",
    "click": "click",
    "rich": "rich",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
    "trustme": "trustme",
}


def main() -> None:
    """Runs all of it; the exit status is 0 where all tests passed and all could be measured."""
    lacking = missing_modules()
    if lacking:
        sys.exit(f"this Python lacks {', '.join(lacking)}; install that, or run another Python")
    device = processes.cuda_name()
    if device is None:
        sys.exit(
            "there is no CUDA device here, as far as torch sees: nothing is tested or measured"
        )
    print(f"{device}; Python {sys.version.split()[0]}", flush=True)
    if shutil.which("h2load") is None:
        print("without h2load (nghttp2-client) one of the benchmarks is left out", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        install_path(Path(folder))
        outcomes, failed = test()
        broken = measure(device, outcomes)
    sys.exit(failed or broken)


def missing_modules() -> list[str]:
    """What is to be installed first."""
    lacking = [package for module, package in NEEDED.items() if not is_installed(module)]
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        lacking.append("a C compiler (gcc)")
    return lacking


def is_installed(module: str) -> bool:
    """Whether it is there; nothing but the packages around it is imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def install_path(folder: Path) -> None:
    """Has this process and those that it starts find mnist37 here, whether installed or not."""
    paths = [*SOURCES, str(folder)]
    sys.path[:0] = paths
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, before] if before else paths)
    try:
        importlib.metadata.version("mnist37")
    except importlib.metadata.PackageNotFoundError:
        # The server tells its version, which it asks of the installation.
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        about = folder / f"mnist37-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: mnist37\nVersion: {version}\n"
        )


def test() -> tuple[dict[str, str], bool]:
    """Runs the tests and shows what they say.

    Returns:
        pytest's last line for each group of them, and whether something failed.
    """
    # A warning of another release of a library is no failure here.
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"]
    outcomes: dict[str, str] = {}
    failed = False
    for group, tests in TESTS.items():
        print(f"{group}:", flush=True)
        with subprocess.Popen(
            [*command, *tests], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                outcomes[group] = line.strip() or outcomes.get(group, "")
        failed |= process.returncode != 0
    return outcomes, failed


def measure(device: str, tests: dict[str, str]) -> bool:
    """Measures and writes the results.

    Returns:
        Whether one of the benchmarks broke.
    """
    # They import what `missing` looks for.
    from benchmarks import __main__ as bench
    from benchmarks import report
    from benchmarks.harness import Options
    from benchmarks.suites import device as theme

    tested = {f"tests: {group}": said for group, said in tests.items()}
    about: report.Machine = {**report.machine(), "device": device, **tested}
    os.sched_setaffinity(0, processes.LOAD)
    results, broken = bench.measure(theme.rows(Options()), quick=False)
    bench.write(bench.RESULTS, about, ["device"], results)
    return broken


if __name__ == "__main__":
    main()
