"""The targets of tests/stress/fuzz_targets.py, by the million, led by what of the code is reached.

    PYTHONPATH=tests python -m stress.fuzz [INPUTS [TARGET ...]]      so many to each (1,000,000)

Needs atheris, which is there for Linux alone: pip install '.[fuzz]'. It ends with status 1 at the
first input that breaks a property, which it prints and keeps in the folder that it was started in.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path


def fuzz(name: str, inputs: int, corpus: str) -> None:
    """Never returns: the fuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(
        ["mnist37_server", "mnist37_client", "PIL", "stress.fuzz_targets"]
    ):
        from stress.fuzz_targets import TARGETS
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    options = [f"-atheris_runs={inputs}", "-max_len=8192", "-timeout=20", "-rss_limit_mb=4096"]
    atheris.Setup([name, *options, "-print_final_stats=1", corpus], target.check)
    atheris.Fuzz()


def main(inputs: int, names: list[str]) -> int:
    """Each target in a process of its own; how many of them failed."""
    failed = 0
    for name in names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as corpus:
            child = [sys.executable, __file__, "--one", name, str(inputs), corpus]
            done = subprocess.run(child, capture_output=True, check=False)
            kept = len(list(Path(corpus).iterdir()))
        took = time.monotonic() - began
        told = (done.stdout + done.stderr).decode(errors="replace")
        # Not the exit status: the fuzzer's own alarm may end a process that has done its work.
        whole = f"\nDone {inputs} in" in told
        said = f"{name}: {inputs:,} inputs, {took:.0f} s, {kept} kept for what they reach"
        print(said + ("" if whole else ": FAILED"), flush=True)
        if not whole:
            failed += 1
            noise = ("INFO", "#")
            print("\n".join(x for x in told.splitlines() if not x.startswith(noise)), flush=True)
    return failed


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    from stress.fuzz_targets import TARGETS

    number = int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else 1_000_000
    sys.exit(min(main(number, sys.argv[2:] or list(TARGETS)), 1))
