"""The tests and benchmarks for a CUDA device, in one command: `python -m benchmarks.on_device`.

The command uses the Python that runs it and its packages, and no network. mnist37 itself need not
be installed. The results are stored under the device's name.
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
# The first group shows whether the kernels compile, and needs no device.
TESTS = {
    "compiled": ["tests/unit/mnist37/test_compiled_kernels.py"],
    "arithmetic": ["tests/unit/mnist37/test_training.py"],
    "server": ["tests/integration/test_cuda.py"],
}

# Module that is imported -> package that provides it.
PACKAGE_BY_MODULE = {
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
    """Run the tests and benchmarks; exit with 0 if all tests passed and no benchmark broke."""
    missing = missing_packages()
    if missing:
        sys.exit(f"this Python lacks {', '.join(missing)}; install that, or run another Python")
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


def missing_packages() -> list[str]:
    """Return the packages and programs that must be installed first."""
    missing = [package for module, package in PACKAGE_BY_MODULE.items() if not is_installed(module)]
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        missing.append("a C compiler (gcc)")
    return missing


def is_installed(module: str) -> bool:
    """Return whether a module is installed; import only the packages that contain it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def install_path(folder: Path) -> None:
    """Let this process and its child processes import mnist37 from this checkout.

    Args:
        folder: an empty folder. If mnist37 is not installed, it gets the metadata of a package.
    """
    paths = [*SOURCES, str(folder)]
    sys.path[:0] = paths
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, before] if before else paths)
    try:
        importlib.metadata.version("mnist37")
    except importlib.metadata.PackageNotFoundError:
        # The server reads its version from the package's metadata.
        version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
        about = folder / f"mnist37-{version}.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: mnist37\nVersion: {version}\n"
        )


def test() -> tuple[dict[str, str], bool]:
    """Run the tests and print their output.

    Returns:
        pytest's last line for each group of tests, and whether a test failed.
    """
    # A library of another release may warn; that is not a failure here.
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
    """Run the benchmarks and write the results.

    Args:
        device: the device's name.
        tests: pytest's last line for each group of tests.

    Returns:
        Whether one of the benchmarks broke.
    """
    # These import packages that `missing_packages` checks first.
    from benchmarks import __main__ as bench
    from benchmarks import report
    from benchmarks.harness import Options
    from benchmarks.suites import device as theme

    outcomes = {f"tests: {group}": line for group, line in tests.items()}
    about: report.Machine = {**report.machine(), "device": device, **outcomes}
    os.sched_setaffinity(0, processes.LOAD)
    results, broken = bench.measure(theme.rows(Options()), quick=False)
    bench.write(bench.RESULTS, about, ["device"], results)
    return broken


if __name__ == "__main__":
    main()
