"""The harness of benchmarks/: its statistics, processes and loads; how fast it all is, it says."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from mnist37_client.local_server import LocalServer

from benchmarks import __main__ as bench
from benchmarks import baselines, harness, processes, report
from benchmarks.harness import (
    Aim,
    Benchmark,
    Figure,
    Measure,
    MissingRequirement,
    Options,
    Spread,
    Verdict,
)
from benchmarks.load import h2load, http2
from benchmarks.suites import device, training

AT_LEAST = Aim("at least", 0.9)


@contextmanager
def nothing() -> Iterator[Measure]:
    yield lambda _: 1.0


def compared(aim: Aim, figure: Figure = Figure.RATIO) -> Benchmark:
    return Benchmark("key", "name", "s", aim, a=nothing, b=nothing, figure=figure)


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    found = Spread([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (found.lower, found.median, found.upper) == (2.0, 3.0, 4.0)
    assert Spread([7.0]).median == 7.0


def test_what_counts_are_the_ratios_of_neighbours() -> None:
    """The machine became ten times slower between the pairs; A is twice B all along."""
    found = [(2.0, 1.0), (20.0, 10.0), (0.2, 0.1)]
    result = harness.evaluate(compared(AT_LEAST), [], found, [(1.0, 1.0)])
    assert result.figure.values == pytest.approx([2.0, 2.0, 2.0])
    result = harness.evaluate(compared(AT_LEAST, Figure.DIFFERENCE), [], found, [(1.0, 1.0)])
    assert result.figure.median == 1.0


@pytest.mark.parametrize(
    ("aim", "figure", "control", "verdict"),
    [
        (AT_LEAST, 0.91, 1.0, Verdict.HOLDS),
        (AT_LEAST, 0.89, 1.0, Verdict.MISSED),
        (AT_LEAST, 5.0, 1.04, Verdict.INCONCLUSIVE),
        (AT_LEAST, 0.1, 0.96, Verdict.INCONCLUSIVE),
        (Aim("at most", 1.1), 1.09, 1.02, Verdict.HOLDS),
        (Aim("at most", 1.1), 1.11, 0.98, Verdict.MISSED),
    ],
)
def test_the_verdict(aim: Aim, figure: float, control: float, verdict: Verdict) -> None:
    result = harness.evaluate(compared(aim), [], [(figure, 1.0)], [(control, 1.0)])
    assert result.verdict is verdict


def test_a_and_b_run_in_turn_in_fresh_processes_each_round() -> None:
    said: list[str] = []

    @contextmanager
    def side(name: str) -> Iterator[Measure]:
        said.append(f"+{name}")

        def measure(_: float) -> float:
            said.append(name)
            return 1.0

        yield measure
        said.append(f"-{name}")

    a, b = partial(side, "a"), partial(side, "b")
    result = harness.run(Benchmark("key", "name", "s", AT_LEAST, a, b, pairs=2, rounds=2))
    one_round = "+a +a +b  a a b  a a a a  a b b a  -b -a -a"
    assert said == one_round.split() * 2
    assert result.control is not None
    assert len(result.figure.values) == len(result.control.values) == 4


def test_workers_measure_in_processes_of_their_own(tmp_path: Path) -> None:
    with processes.worker(processes.SERVER, baselines.fdatasync, tmp_path, 4_096) as sync:
        assert 0 < sync(0.01) < 1
    with pytest.raises(FileNotFoundError):
        processes.Worker(processes.SERVER, baselines.fdatasync, tmp_path / "missing", 1)


def body(images: int) -> bytes:
    return h2load.frame(baselines.predict_request(images))


def test_single_calls_are_answered_and_failures_noticed(address: str) -> None:
    calls = http2.Calls(address, "Predict", body(1), answer=11)
    assert all(latency > 0 for latency in calls.one_at_a_time(0.1))
    assert len(calls.open_loop(rate=200, seconds=0.2)) == 40
    calls.close()
    refused = http2.Calls(address, "Predict", h2load.frame(b""), answer=11)
    with pytest.raises(RuntimeError, match="a call failed"):
        refused.one_at_a_time(0.1)
    refused.close()


def test_an_open_loop_counts_the_wait_of_those_who_come_while_the_server_stalls(
    server: LocalServer,
) -> None:
    calls = http2.Calls(server.address, "Predict", body(1), answer=11)
    calls.one_at_a_time(0.1)
    for seconds, number in ((0.2, signal.SIGSTOP), (0.6, signal.SIGCONT)):
        threading.Timer(seconds, server.process.send_signal, [number]).start()
    latencies = calls.open_loop(rate=100, seconds=1.0)
    calls.close()
    # 40 of 100 came in those 0.4 s, and waited 0.2 s on average.
    assert sum(latency > 0.1 for latency in latencies) > 15
    assert max(latencies) > 0.3


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_a_closed_loop_counts_answers_and_not_only_responses(address: str) -> None:
    assert h2load.ClosedLoop(address, "Predict", body(1), 11, in_flight=4)(0.1) > 0
    refused = h2load.ClosedLoop(address, "Predict", h2load.frame(b""), 11, in_flight=4)
    with pytest.raises(RuntimeError, match="not all of 10 calls were answered"):
        refused(0.1)


@pytest.mark.skipif(processes.cuda_name() is not None, reason="there is a CUDA device")
def test_without_a_cuda_device_its_rows_and_its_script_say_so() -> None:
    for row in device.rows(Options()):
        with pytest.raises(MissingRequirement, match="needs a CUDA device; none here"):
            harness.run(row, quick=True)
    script = [sys.executable, "-m", "benchmarks.on_device"]
    ended = subprocess.run(script, cwd=processes.ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == (
        "there is no CUDA device here, as far as torch sees: nothing is tested or measured\n"
    )


def test_results_about_a_cuda_device_are_named_by_it(tmp_path: Path) -> None:
    about = {**report.machine(), "device": "NVIDIA H100 80GB HBM3"}
    result = harness.evaluate(compared(AT_LEAST), [], [(1.0, 1.0)], [(1.0, 1.0)])
    bench.write(tmp_path, about, ["device"], [result])
    (written,) = tmp_path.glob("*.json")
    assert written.stem == f"{about['date']}-nvidia-h100-80gb-hbm3-device"
    assert json.loads(written.read_text())["machine"] == about


def test_training_losses_are_autograds() -> None:
    """What the row training-losses measures, over RPC or not, has to run on every machine."""
    assert training.losses()(0.1) < 1e-6
