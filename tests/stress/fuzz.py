"""Coverage-guided fuzzing of the targets in tests/stress/fuzz_targets.py.

    PYTHONPATH=tests python -m stress.fuzz [INPUTS [TARGET ...]]

INPUTS is the number of inputs for each target (1,000,000). The command needs atheris, which exists
for Linux only: pip install '.[fuzz]'. A target ends at the first input that breaks its property;
the fuzzer prints that input and writes it to the working folder. The exit status is then 1.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path


def fuzz(name: str, inputs: int, corpus: str) -> None:
    """Fuzz one target; the fuzzer ends the process, so this function does not return."""
    import atheris

    with atheris.instrument_imports(
        ["mnist37_server", "mnist37_client", "mnist37_web", "PIL", "stress.fuzz_targets"]
    ):
        from stress.fuzz_targets import TARGETS
    target = TARGETS[name]
    for number, seed in enumerate(target.seeds):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    options = [f"-atheris_runs={inputs}", "-max_len=8192", "-timeout=20", "-rss_limit_mb=4096"]
    atheris.Setup([name, *options, "-print_final_stats=1", corpus], target.check)
    atheris.Fuzz()


def main(inputs: int, names: list[str]) -> int:
    """Fuzz each target in a separate process; return the number of targets that failed."""
    failures = 0
    for name in names:
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as corpus:
            command = [sys.executable, __file__, "--one", name, str(inputs), corpus]
            process = subprocess.run(command, capture_output=True, check=False)
            corpus_size = len(list(Path(corpus).iterdir()))
        elapsed = time.monotonic() - start
        output = (process.stdout + process.stderr).decode(errors="replace")
        # The exit status says nothing: the fuzzer's alarm may end a process after its last input.
        is_complete = f"\nDone {inputs} in" in output
        summary = f"{name}: {inputs:,} inputs, {elapsed:.0f} s, {corpus_size} kept for coverage"
        print(summary + ("" if is_complete else ": FAILED"), flush=True)
        if not is_complete:
            failures += 1
            noise = ("INFO", "#")
            lines = output.splitlines()
            print("\n".join(line for line in lines if not line.startswith(noise)), flush=True)
    return failures


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        fuzz(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    from stress.fuzz_targets import TARGETS

    number = int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else 1_000_000
    sys.exit(min(main(number, sys.argv[2:] or list(TARGETS)), 1))
