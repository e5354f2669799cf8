"""Tests of the benchmarks' harness: its statistics, processes and loads, and no speed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from mnist37_client.local_server import LocalServer
from support.pages import ROOT, names, table

from benchmarks import __main__ as bench
from benchmarks import baselines, harness, perf_analyzer, processes, report
from benchmarks.harness import (
    Aim,
    Benchmark,
    Figure,
    Measure,
    MissingRequirement,
    Options,
    Result,
    Spread,
    Verdict,
)
from benchmarks.load import h2load, http2
from benchmarks.suites import commits, device, predict, training

AT_LEAST = Aim("at least", 0.9)
README = "benchmarks/README.md"


@contextmanager
def constant() -> Iterator[Measure]:
    yield lambda _: 1.0


def comparison(aim: Aim, figure: Figure = Figure.RATIO) -> Benchmark:
    return Benchmark("key", "name", "s", aim, a=constant, b=constant, figure=figure)


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    spread = Spread([4.0, 1.0, 3.0, 2.0, 5.0])
    assert (spread.lower, spread.median, spread.upper) == (2.0, 3.0, 4.0)
    assert Spread([7.0]).median == 7.0


def test_the_figure_is_the_median_ratio_of_neighbours() -> None:
    # The machine's speed changes by a factor between the pairs, but A is always twice B.
    pairs = [(2.0, 1.0), (20.0, 10.0), (0.2, 0.1)]
    result = harness.evaluate(comparison(AT_LEAST), [], pairs, [(1.0, 1.0)])
    assert result.figure.values == pytest.approx([2.0, 2.0, 2.0])
    result = harness.evaluate(comparison(AT_LEAST, Figure.DIFFERENCE), [], pairs, [(1.0, 1.0)])
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
    result = harness.evaluate(comparison(aim), [], [(figure, 1.0)], [(control, 1.0)])
    assert result.verdict is verdict


def test_a_and_b_run_in_turn_in_fresh_processes_each_round() -> None:
    events: list[str] = []

    @contextmanager
    def side(name: str) -> Iterator[Measure]:
        events.append(f"+{name}")

        def measure(_: float) -> float:
            events.append(name)
            return 1.0

        yield measure
        events.append(f"-{name}")

    a, b = partial(side, "a"), partial(side, "b")
    result = harness.run(Benchmark("key", "name", "s", AT_LEAST, a, b, pairs=2, rounds=2))
    one_round = "+a +a +b  a a b  a a a a  a b b a  -b -a -a"
    assert events == one_round.split() * 2
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
    calls = http2.Calls(address, "Predict", body(1), answer_bytes=11)
    assert all(latency > 0 for latency in calls.one_at_a_time(0.1))
    assert len(calls.open_loop(rate=200, seconds=0.2)) == 40
    calls.close()
    refused = http2.Calls(address, "Predict", h2load.frame(b""), answer_bytes=11)
    with pytest.raises(RuntimeError, match="a call failed"):
        refused.one_at_a_time(0.1)
    refused.close()


def test_an_open_loop_counts_the_wait_of_calls_that_are_due_while_the_server_stalls(
    server: LocalServer,
) -> None:
    calls = http2.Calls(server.address, "Predict", body(1), answer_bytes=11)
    calls.one_at_a_time(0.1)
    for seconds, number in ((0.2, signal.SIGSTOP), (0.6, signal.SIGCONT)):
        threading.Timer(seconds, server.process.send_signal, [number]).start()
    latencies = calls.open_loop(rate=100, seconds=1.0)
    calls.close()
    # 40 of the 100 calls were due in the 0.4 s of the stall, and waited 0.2 s on average.
    assert sum(latency > 0.1 for latency in latencies) > 15
    assert max(latencies) > 0.3


def test_an_open_loop_has_no_more_calls_open_than_the_server_allows() -> None:
    """Envoy ends a connection with more; the calls that are due wait, and their time counts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        calls = http2.Calls(address, "Predict", b"", 0)
        server, _ = listener.accept()
    with server:
        server.settimeout(0.5)
        server.sendall(http2.frame(http2.SETTINGS, 0, 0, http2.SETTING.pack(3, 7)))
        calls._receive()
        threading.Timer(0.5, server.shutdown, [socket.SHUT_WR]).start()
        with pytest.raises(RuntimeError, match="the server closed the connection"):
            calls.open_loop(rate=1_000, seconds=0.3)
        calls.close()
        received = b"".join(iter(lambda: server.recv(65_536), b""))
    assert received.count(http2.request_headers(address, "Predict")) == 7


@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed")
def test_a_closed_loop_counts_answers_and_not_only_responses(address: str) -> None:
    assert h2load.ClosedLoop(address, "Predict", body(1), 11, in_flight=4)(0.1) > 0
    refused = h2load.ClosedLoop(address, "Predict", h2load.frame(b""), 11, in_flight=4)
    with pytest.raises(RuntimeError, match="not all of 10 calls were answered"):
        refused(0.1)


def test_the_server_on_a_slow_disk_starts_and_takes_steps() -> None:
    (row,) = (row for row in commits.rows(Options()) if row.key == "commits-together")
    with row.a() as steps_a_second:
        assert steps_a_second(0.2) > 0


@pytest.mark.skipif(processes.cuda_name() is not None, reason="there is a CUDA device")
def test_without_a_cuda_device_its_rows_and_its_script_say_so() -> None:
    for row in device.rows(Options()):
        with pytest.raises(MissingRequirement, match="needs a CUDA device; none here"):
            harness.run(row, quick=True)
    script = [sys.executable, "-m", "benchmarks.on_device"]
    process = subprocess.run(
        script, cwd=processes.ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    assert process.stderr == (
        "there is no CUDA device here, as far as torch sees: nothing is tested or measured\n"
    )


def test_results_about_a_cuda_device_are_named_by_it(tmp_path: Path) -> None:
    about = {**report.machine(), "device": "NVIDIA H100 80GB HBM3"}
    result = harness.evaluate(comparison(AT_LEAST), [], [(1.0, 1.0)], [(1.0, 1.0)])
    bench.write(tmp_path, about, ["device"], [result])
    (file,) = tmp_path.glob("*.json")
    assert file.stem == f"{about['date']}-nvidia-h100-80gb-hbm3-device"
    assert json.loads(file.read_text())["machine"] == about


ABOUT: report.Machine = {"processor": "Some CPU", "cores": 2, "date": "2026-01-31"}
PAGE = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"


def page_results() -> list[Result]:
    rows = [
        Benchmark("one-ratio", "A | B", "/s", AT_LEAST, constant, constant),
        Benchmark("one-value", "a time", "s", Aim("at most", 0.15), constant, None, Figure.VALUE),
        Benchmark(
            "two-value", "a rate", "/s", Aim("at least", 100_000), constant, None, Figure.VALUE
        ),
    ]
    return [
        harness.evaluate(rows[0], [], [(0.5, 1.0), (0.6, 1.0), (0.7, 1.0)], [(1.0, 1.0)]),
        harness.evaluate(rows[1], [0.047, 0.048, 0.05], [], []),
        harness.evaluate(rows[2], [142_460.0], [], []),
    ]


TABLE = """\
Some CPU, 2 cores; every pair is in [FILE.json](../benchmarks/results/FILE.json).

| row | median (its middle half) | aim | verdict |
|---|---|---|---|
| `one-ratio`: A \\| B | 0.6 (0.55 to 0.65) | at least 0.9 | missed |
| `one-value`: a time | 48 ms (47.5 ms to 49 ms) | at most 150 ms | holds |
| `two-value`: a rate | 142,460 /s (142,460 to 142,460) | at least 100,000 /s | holds |"""


def test_the_page_gets_a_table_of_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both a full run and --table, from the run's file, write the table.
    page = tmp_path / "page.md"
    monkeypatch.setattr(bench, "PAGE", page)
    monkeypatch.setattr(
        bench, "all_rows", lambda _: [result.benchmark for result in page_results()]
    )
    file, *_ = report.write(tmp_path, "some-cpu", ABOUT, page_results())
    for write in (
        lambda: bench.update_page(file, missing=[]),
        lambda: bench.main(["--table", str(file)], standalone_mode=False),
    ):
        page.write_text(PAGE)
        write()
        assert page.read_text() == PAGE.replace("old", TABLE.replace("FILE", "some-cpu"))


def test_a_later_file_replaces_rows_and_old_rows_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, removed = page_results()
    again = harness.evaluate(second.benchmark, [0.2], [], [])
    monkeypatch.setattr(bench, "all_rows", lambda _: [first.benchmark, second.benchmark])
    files = [
        report.write(tmp_path, name, ABOUT, results)[0]
        for name, results in (("old", [first, second, removed]), ("new", [again]))
    ]
    source, _, *rows = bench.page_table(files).splitlines()
    assert source.endswith(
        " [old.json](../benchmarks/results/old.json), [new.json](../benchmarks/results/new.json)."
    )
    assert rows[2:] == [
        TABLE.splitlines()[4],
        "| `one-value`: a time | 200 ms (200 ms to 200 ms) | at most 150 ms | missed |",
    ]


def test_the_table_of_the_page_is_made_from_the_files_that_it_names() -> None:
    page = bench.PAGE.read_text()
    measured = page.partition(f"{report.BEGIN}\n")[2].partition(f"\n{report.END}")[0]
    named = re.findall(r"\]\(\.\./benchmarks/results/(.+?)\)", measured)
    assert measured == bench.page_table([bench.RESULTS / name for name in named])


def test_the_page_stays_where_rows_or_markers_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    monkeypatch.setattr(bench, "PAGE", page)
    page.write_text(PAGE)
    rows = [comparison(AT_LEAST), *device.rows(Options())]
    assert bench.missing_rows(rows, []) == ["key"]
    bench.update_page(tmp_path / "none.json", ["key"])
    assert capsys.readouterr().out.endswith("stays as it is; not measured: key\n")
    assert page.read_text() == PAGE
    page.write_text(PAGE.replace(report.END, ""))
    with pytest.raises(ValueError, match="has no lines"):
        report.update_page(page, "new")
    assert "old" in page.read_text()


def test_the_readme_describes_every_row() -> None:
    described = [key for row in table(README, "row") for key in names(row["row"])]
    assert described == [row.key for row in bench.all_rows(Options())]


def test_the_readme_s_example_is_a_row() -> None:
    code = re.findall(r"```python\n(.+?)```", (ROOT / README).read_text(), re.S)
    assert isinstance(eval(code[0], vars(predict)), Benchmark)


def test_training_losses_are_autograds() -> None:
    # The row training-losses has to run on every machine.
    assert training.measure_loss_error()(0.1) < 1e-6


def program(path: Path, script: str) -> Path:
    """Write a shell script that stands for perf_analyzer."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            'echo "x: libc.so.6: version \\`GLIBC_2.38\' not found (required by x)" >&2; exit 1',
            r"^perf_analyzer needs glibc 2\.38, and this system has .*MNIST37_PERF_LIBRARIES name",
        ),
        (
            "echo 'x: libssl.so.3: cannot open shared object file' >&2; exit 127",
            r"^perf_analyzer does not start here: x: libssl\.so\.3: cannot open shared object file",
        ),
        ("exit 3", "^perf_analyzer does not start here: exit 3$"),
    ],
    ids=["glibc", "library", "status"],
)
def test_perf_analyzer_says_in_a_line_why_it_cannot_run(
    tmp_path: Path, script: str, said: str
) -> None:
    path = program(tmp_path / "perf_analyzer", script)
    with pytest.raises(perf_analyzer.CannotRun, match=said) as caught:
        perf_analyzer.find_command(path, {})
    assert "\n" not in str(caught.value)


def test_perf_analyzer_can_have_libraries_of_its_own(tmp_path: Path) -> None:
    path = program(tmp_path / "perf_analyzer", "exit 0")
    assert perf_analyzer.find_command(path, {}) == [str(path)]
    variable = {perf_analyzer.VARIABLE: str(tmp_path)}
    with pytest.raises(perf_analyzer.CannotRun, match=r"there is no ld-linux-x86-64\.so\.2 in /"):
        perf_analyzer.find_command(path, variable)
    loader = program(tmp_path / perf_analyzer.LOADER, f'test "$3" = {path}')
    command = perf_analyzer.find_command(path, variable)
    assert (command[0], command[1], command[3]) == (str(loader), "--library-path", str(path))
    assert command[2].startswith(f"{tmp_path}:/lib/")


REPORT = """
  Client:
    Request count: 3831
    Throughput: 67669.9 infer/sec
    p50 latency: 1208 usec
    p99 latency: 15129 usec
  Server:
    Inference count: 245312
    Execution count: 3833
    Successful request count: 3833
    Avg request latency: 89 usec (overhead 1 usec + queue 3 usec + compute input 38 usec + \
compute infer 32 usec + compute output 15 usec)
"""


def test_a_report_of_perf_analyzer_is_read_and_its_counts_are_checked() -> None:
    report = perf_analyzer.parse(REPORT, 64)
    assert (report["rate"], report["p99"], report["compute"]) == (67669.9, 15129, 32)
    for wrong, said in (
        (REPORT.replace("245312", "245313"), "do not fit one another"),
        (REPORT.replace("3831", "2831"), "are not those of the calls"),
        (REPORT.replace("Execution", "Other"), "the report has no executions"),
    ):
        with pytest.raises(RuntimeError, match=said):
            perf_analyzer.parse(wrong, 64)
