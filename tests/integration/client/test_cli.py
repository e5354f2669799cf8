"""Tests of the command line, and of the server's start and end, in separate processes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mnist37_client import Client, validation_images
from mnist37_client.cli.safetensors_file import load_model
from mnist37_client.cli.terminal import HEADER
from mnist37_client.local_server import LocalServer
from PIL import Image
from support.twin import Twin

Finished = subprocess.CompletedProcess[str]

CLI = (sys.executable, "-m", "mnist37_client.cli")
NO_SERVER = "127.0.0.1:1"  # an address without a listener, for commands that need no server
LONG = 100_000  # epochs, more than any test waits for


def environment(address: str, **more: str) -> dict[str, str]:
    # The settings in the shell that runs the tests must not have an effect here.
    dropped = ("MNIST37_", "COLUMNS", "FORCE_COLOR", "PYTHONWARNINGS")
    rest = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**rest, "MNIST37_ADDRESS": address, **more}


def mnist37(address: str, *arguments: object, **more: str) -> Finished:
    """Run a command and wait for its end."""
    return subprocess.run(
        [*CLI, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(address, **more),
        timeout=30,
        check=False,
    )


@contextmanager
def running(address: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start a command, and kill it at the end of the context if it still runs."""
    # A background job of a shell ignores SIGINT, and its child processes inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [*CLI, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(address),
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def lines(finished: Finished) -> list[str]:
    """Return the lines that a successful command printed."""
    assert (finished.returncode, finished.stderr) == (0, "")
    return finished.stdout.splitlines()


def objects(finished: Finished) -> list[dict[str, Any]]:
    """Return the objects that a successful command with --json printed."""
    return [json.loads(line) for line in lines(finished)]


def error(finished: Finished, status: int) -> str:
    """Return the one line that a failed command printed."""
    assert finished.returncode == status, finished.stderr
    assert "Traceback" not in finished.stderr
    assert len(finished.stderr.splitlines()) == 1, finished.stderr
    return finished.stderr


def wait_until_untrained(client: Client) -> int:
    """Wait until the model is no longer trained, and return its version; fail after 3 seconds."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        before = client.get_model().version
        time.sleep(0.3)
        if client.get_model().version == before:
            return before
    raise AssertionError("the model is still being trained")


def picture(folder: Path, index: int) -> Path:
    """Write a validation image to a file and return its path; the first is a 3, the last a 7."""
    path = folder / f"digit {index}.png"
    image = validation_images()[0][index].repeat(5, axis=0).repeat(5, axis=1)
    Image.fromarray(255 - image).save(path)
    return path


# Commands that need no server.


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("", ["--version", "--help"]),
        (
            "train",
            ["EPOCHS", "--learning-rate", "--batch-size", "--seed", "--request-id", "--json"],
        ),
        ("step", ["--learning-rate", "--request-id", "--json"]),
        ("predict", ["FILE", "--show", "--json"]),
        ("loss", ["--split", "train", "valid", "--json"]),
        ("init", ["--seed", "--std", "--request-id", "--json"]),
        ("model", ["--json"]),
        ("health", ["--tls-ca", "--tls-server-name"]),
        ("demo", []),
        (
            "serve",
            ["--address", "--device", "--state", "--data-root", "--download", "--shutdown-grace"],
        ),
    ],
)
def test_help_lists_the_options_of_a_command(command: str, options: list[str]) -> None:
    usage, *rest = lines(mnist37(NO_SERVER, *command.split(), "--help"))
    assert re.match(f"Usage: .*{command}", usage)
    shown = "\n".join([usage, *rest])
    for option in options:
        assert option in shown
    if command not in ("", "demo", "serve"):
        assert "--address" in shown
        assert "MNIST37_ADDRESS" in shown


def test_help_lists_every_command() -> None:
    shown = lines(mnist37(NO_SERVER, "--help"))
    first_words = {line.split()[0] for line in shown[shown.index("Commands:") + 1 :] if line}
    assert {"train", "step", "predict", "loss", "init", "model", "demo", "serve"} <= first_words


def test_help_loads_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "mnist37_client.cli", "--help"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "demo" in found.stdout
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in found.stderr.splitlines()}
    assert {"click", "mnist37_client"} <= loaded
    assert not loaded & {"grpc", "google", "numpy", "asyncio", "rich", "plotext", "PIL", "torch"}


def test_the_version_is_the_packages() -> None:
    (shown,) = lines(mnist37(NO_SERVER, "--version"))
    assert shown.endswith(f"version {installed_version('mnist37')}")


# Each command, with text and JSON output.


def test_train_shows_a_table_a_curve_and_the_outcome(address: str, client: Client) -> None:
    shown = lines(mnist37(address, "train", 3))
    assert shown[0] == HEADER
    assert [line.split()[0] for line in shown[1:4]] == ["1", "2", "3"]
    assert any("loss by epoch" in line for line in shown)
    outcome = re.fullmatch(r"validation accuracy (0\.\d{4}), version (\d+)", shown[-1])
    assert outcome
    now = client.get_loss("valid")
    assert outcome.groups() == (f"{now.accuracy:.4f}", str(now.version))
    assert max(map(len, shown)) <= 80
    assert not any("\x1b" in line for line in shown)


def test_train_of_one_epoch_has_no_curve(address: str) -> None:
    shown = [line for line in lines(mnist37(address, "train", 1)) if line]
    assert len(shown) == 3
    assert shown[2].startswith("validation accuracy ")


def test_train_with_json_prints_an_object_an_epoch(address: str, client: Client) -> None:
    before = client.get_model().version
    options = ("--learning-rate", 0.5, "--batch-size", 6198, "--seed", 7)
    progress = objects(mnist37(address, "train", 3, "--json", *options))
    assert [(one["epoch"], one["epochs"]) for one in progress] == [(1, 3), (2, 3), (3, 3)]
    assert [one["version"] - before for one in progress] == [2, 4, 6]
    assert set(progress[0]) == {
        "epoch", "epochs", "train_loss", "valid_loss", "valid_accuracy", "version", "elapsed",
        "run", "best_epoch", "stopped_early",
    }  # fmt: skip
    assert progress[2]["train_loss"] < progress[0]["train_loss"]
    assert progress[2]["valid_loss"] == client.get_loss("valid").loss


def test_step_says_the_loss_before_it_and_the_version_after_it(
    address: str, client: Client
) -> None:
    before = client.get_model().version
    (shown,) = lines(mnist37(address, "step"))
    assert re.fullmatch(rf"loss 0\.\d{{6}} before the step, version {before + 1} after it", shown)
    (done,) = objects(mnist37(address, "step", "--json", "--learning-rate", 0.1))
    assert set(done) == {"loss", "version"}
    assert done["version"] == before + 2
    assert 0 < done["loss"] < 1


def test_loss_shows_both_splits_or_the_one_asked_for(address: str, client: Client) -> None:
    train, valid = client.get_loss("train"), client.get_loss("valid")
    shown = lines(mnist37(address, "loss"))
    assert shown[::4] == [
        f"{name}: loss {found.loss:.6f}, accuracy {found.accuracy:.4f} on {count} images,"
        f" version {found.version}"
        for name, found, count in (("train", train, "12,396"), ("valid", valid, "2,038"))
    ]
    assert [line.split() for line in shown[5:]] == [
        ["called", "3", "called", "7"],
        ["threes", f"{valid.threes_right:,}", f"{valid.threes_called_sevens:,}"],
        ["sevens", f"{valid.sevens_called_threes:,}", f"{valid.sevens_right:,}"],
    ]
    (only,) = objects(mnist37(address, "loss", "--split", "valid", "--json"))
    assert only == {
        "split": "valid",
        "loss": valid.loss,
        "accuracy": valid.accuracy,
        "count": 2038,
        "version": valid.version,
        "threes_right": valid.threes_right,
        "threes_called_sevens": valid.threes_called_sevens,
        "sevens_right": valid.sevens_right,
        "sevens_called_threes": valid.sevens_called_threes,
    }
    assert [one["split"] for one in objects(mnist37(address, "loss", "--json"))] == [
        "train",
        "valid",
    ]


def test_init_draws_the_parameters_of_the_seed(address: str, client: Client) -> None:
    before = client.get_model()  # of seed 42
    assert lines(mnist37(address, "init", "--seed", 1)) == [f"version {before.version + 1}"]
    assert client.get_model().digest != before.digest
    assert objects(mnist37(address, "init", "--json")) == [{"version": before.version + 2}]
    assert client.get_model().digest == before.digest
    lines(mnist37(address, "init", "--std", 0))
    assert not client.get_model().weights.any()


def test_model_shows_its_device_and_with_json_its_weights(address: str, client: Client) -> None:
    found = client.get_model()
    (shown,) = lines(mnist37(address, "model"))
    assert shown == f"version {found.version} on {found.device}, digest {found.digest}"
    (model,) = objects(mnist37(address, "model", "--json"))
    assert set(model) == {"version", "digest", "device", "bias", "weights"}
    parameters = np.array([*model["weights"], model["bias"]], "<f4")
    assert parameters.shape == (785,)
    assert hashlib.sha256(parameters.tobytes()).hexdigest() == model["digest"] == found.digest


def test_predict_says_what_each_file_shows(address: str, client: Client, tmp_path: Path) -> None:
    three, seven = picture(tmp_path, 0), picture(tmp_path, -1)
    version = client.train(epochs=5).wait().version
    shown = lines(mnist37(address, "predict", three, seven))
    assert re.fullmatch(rf"{re.escape(str(three))}: 3 \(\d+\.\d%\)", shown[0])
    assert re.fullmatch(rf"{re.escape(str(seven))}: 7 \(\d+\.\d%\)", shown[1])
    said = objects(mnist37(address, "predict", three, seven, "--json"))
    assert [(one["file"], one["digit"]) for one in said] == [(str(three), 3), (str(seven), 7)]
    assert {one["version"] for one in said} == {version}
    assert all(0.5 <= one["probability"] <= 1 for one in said)


def test_predict_with_show_draws_the_digit(address: str, client: Client, tmp_path: Path) -> None:
    client.train(epochs=1).wait()
    three = picture(tmp_path, 0)
    shown = lines(mnist37(address, "predict", "--show", three))
    assert {len(line) for line in shown[:14]} == {28}
    assert "█" in "".join(shown[:14])
    assert shown[14].startswith(f"{three}: ")


def test_versions_lists_what_made_them(address: str, client: Client) -> None:
    client.step()
    found = objects(mnist37(address, "versions", "--limit", 2, "--json"))
    assert [version["origin"] for version in found] == ["step", "initialize"]
    newest, before = lines(mnist37(address, "versions", "--limit", 2))
    assert newest.split()[0] == str(client.get_model().version)
    assert (newest.split()[-1], before.split()[-1]) == ("step", "initialize")


def test_restore_goes_back_to_an_old_version(address: str, client: Client) -> None:
    old = client.get_model()
    version = client.step().version
    assert lines(mnist37(address, "restore", old.version)) == [f"version {version + 1}"]
    assert client.get_model().digest == old.digest
    assert "version: 10000000 is not retained" in error(mnist37(address, "restore", 10_000_000), 4)


def test_runs_lists_runs_and_shows_one(address: str, client: Client) -> None:
    last = client.train(epochs=30, learning_rate=0.5, seed=7).wait()
    number = client.runs()[0].run
    summary = f"run {number}: finished, epoch 30 of 30, accuracy {last.valid_accuracy:.4f}"
    first = lines(mnist37(address, "runs"))[0]
    assert first.startswith(summary)
    assert "learning rate 0.5, batch size 256" in first
    shown = lines(mnist37(address, "runs", number))
    assert shown[0].startswith(summary)
    assert any("loss by epoch" in line for line in shown)
    assert objects(mnist37(address, "runs", "--json"))[0]["run"] == number
    run, *curve = objects(mnist37(address, "runs", number, "--json"))
    assert (run["state"], curve[-1]["epoch"], len(curve)) == ("finished", 30, 30)
    assert "run: 999999 is not retained" in error(mnist37(address, "runs", 999999), 4)


def test_a_run_is_followed_from_a_second_terminal(address: str, client: Client) -> None:
    with client.train(epochs=100_000) as run:
        next(run)
        with running(address, "runs", "--follow") as process:
            assert ": running, epoch" in read_line(process)
            assert "validation loss" in read_line(process)
            assert int(read_line(process).split()[0]) >= 1
            run.cancel()
            rest, printed = process.communicate(timeout=10)
    assert (process.returncode, printed) == (0, "")
    assert ": interrupted, epoch" in rest


def test_export_and_import_give_the_model_back(
    address: str, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    model = client.get_model()
    said = f"version {model.version}, digest {model.digest}"
    assert lines(mnist37(address, "export", file)) == [said]
    version = client.step().version
    assert lines(mnist37(address, "import", file)) == [f"version {version + 1}"]
    assert client.get_model().digest == model.digest
    old = tmp_path / "old.safetensors"
    assert lines(mnist37(address, "export", old, "--version", model.version)) == [said]
    assert np.array_equal(load_model(old)[0], load_model(file)[0])
    assert "cannot be written" in error(mnist37(address, "export", tmp_path / "no" / "x"), 2)
    assert "cannot be read" in error(mnist37(address, "import", tmp_path / "none"), 2)
    old.write_bytes(b"x" * 20)
    assert "not a safetensors file" in error(mnist37(address, "import", old), 2)


def test_an_address_option_goes_before_the_environment_variable(address: str) -> None:
    assert lines(mnist37(NO_SERVER, "model", "--address", address))


# Errors.


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "0"], "epochs"),
        (["train", "--", "-1"], "epochs"),
        (["train", "-1"], "-1"),
        (["train", "abc"], "EPOCHS"),
        (["train", "1", "--learning-rate", "nan"], "learning_rate"),
        (["train", "1", "--batch-size", "12397"], "batch_size"),
        (["train", "1", "--seed", str(2**70)], "seed"),
        (["train", "1", "--request-id", "x" * 129], "request_id"),
        (["step", "--learning-rate", "0"], "learning_rate"),
        (["init", "--std", "-1"], "std"),
        (["loss", "--split", "test"], "--split"),
        (["predict"], "FILE"),
        (["predict", "missing.png"], "missing.png"),
        (["nothing"], "nothing"),
        (["model", "--nothing"], "--nothing"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "named",
)
def test_a_wrong_value_or_file_is_status_2_and_named_in_one_line(
    arguments: list[str], named: str, address: str
) -> None:
    assert named in error(mnist37(address, *arguments), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["loss", "--token", "c2VjcmV0==", ""],
        ["loss", "--token=c2VjcmV0==", "--split="],
        ["loss", "--token", "train", "c2VjcmV0=="],
        ["web", "--token", "c2VjcmV0==", ""],
        ["web", "--token=c2VjcmV0==", "--server", ""],
    ],
    ids=" ".join,
)
def test_a_refused_command_line_shows_no_token(arguments: list[str]) -> None:
    assert "c2VjcmV0" not in error(mnist37(NO_SERVER, *arguments), 2)


def test_a_token_may_end_with_equals_signs() -> None:
    status_of_no_server = 3
    refused = mnist37(NO_SERVER, "loss", "--token=c2VjcmV0==", "--retry-for=0")
    assert "c2VjcmV0" not in error(refused, status_of_no_server)


def test_a_wrong_file_among_right_ones_is_named(address: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.png"
    wrong.write_text("no picture")
    finished = mnist37(address, "predict", picture(tmp_path, 0), wrong)
    named = [line for line in finished.stderr.splitlines() if "never trained" not in line]
    assert finished.returncode == 2
    assert len(named) == 1
    assert str(wrong) in named[0]
    assert re.fullmatch(r".*digit 0\.png: [37] \(\d+\.\d%\)\n", finished.stdout)


def test_predict_reads_stdin_and_walks_a_folder(
    address: str, client: Client, tmp_path: Path
) -> None:
    client.train(epochs=1).wait()
    (tmp_path / "below").mkdir()
    three, seven = picture(tmp_path, 0), picture(tmp_path / "below", -1)
    (tmp_path / "notes.txt").write_text("no picture")
    said = objects(mnist37(address, "predict", "--json", tmp_path))
    assert {one["file"] for one in said} == {str(three), str(seven)}
    command = [*CLI, "predict", "-", "--address", address]
    finished = subprocess.run(command, input=three.read_bytes(), capture_output=True, check=True)
    assert re.fullmatch(rb"-: [37] \(\d+\.\d%\)\n", finished.stdout)


def test_a_model_that_was_never_trained_says_so(
    address: str, client: Client, tmp_path: Path
) -> None:
    version = client.initialize()
    finished = mnist37(address, "predict", picture(tmp_path, 0))
    assert f"version {version} was never trained" in error(finished, 0)
    client.train(epochs=1).wait()
    assert len(lines(mnist37(address, "predict", picture(tmp_path, 0)))) == 1


@pytest.mark.alone  # it measures seconds
@pytest.mark.parametrize("command", ["model", "train 3", "loss", "step", "health"])
def test_an_address_without_a_server_is_status_3_within_3_seconds(command: str) -> None:
    with socket.socket() as taken:  # bound, so that no other process can listen on the port
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        began = time.monotonic()
        message = error(mnist37(address, *command.split()), 3)
        assert time.monotonic() - began < 3
    assert address in message
    assert "mnist37 serve" in message


@pytest.mark.alone
@pytest.mark.parametrize("command", ["model", "train 3"])
def test_a_listener_that_never_answers_is_status_3_within_4_seconds(command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        message = error(mnist37(address, *command.split()), 3)
        assert time.monotonic() - began < 4
    assert address in message


@pytest.mark.parametrize("wrong", ["nonsense", "127.0.0.1:99999", ""])
def test_an_invalid_address_is_an_error_of_one_line(wrong: str) -> None:
    finished = mnist37(NO_SERVER, "model", "--address", wrong)
    assert finished.returncode in (2, 3)
    error(finished, finished.returncode)


def test_a_request_id_used_for_other_values_is_status_4(address: str, client: Client) -> None:
    name = uuid.uuid4().hex
    once = objects(mnist37(address, "step", "--request-id", name, "--json"))
    assert objects(mnist37(address, "step", "--request-id", name, "--json")) == once
    assert client.get_model().version == once[0]["version"]
    for other in (["step", "--learning-rate", 0.5], ["init"], ["train", 1]):
        assert "request_id" in error(mnist37(address, *other, "--request-id", name), 4)
    assert client.get_model().version == once[0]["version"]


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_ctrl_c_stops_a_run_with_status_130(
    options: list[str], address: str, client: Client
) -> None:
    before = client.get_model().version
    with running(address, "train", LONG, *options) as process:
        first = read_line(process)
        if not options:  # the first line was the header
            first = read_line(process)
        assert first
        process.send_signal(signal.SIGINT)
        rest, logged = process.communicate(timeout=10)
    assert process.returncode == 130
    assert logged.strip() == ""
    if not options:
        assert re.search(r"stopped after epoch \d+", rest)
    assert wait_until_untrained(client) > before


def test_a_reader_that_closes_the_pipe_ends_a_run_without_an_error(
    address: str, client: Client
) -> None:
    with running(address, "train", LONG, "--json") as process:
        assert json.loads(read_line(process))["epoch"] == 1
        assert process.stdout is not None
        process.stdout.close()  # as `| head -1` does
        assert process.wait(timeout=10) != 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    wait_until_untrained(client)


def test_a_run_whose_server_is_ended_is_status_3(server: LocalServer) -> None:
    with running(server.address, "train", LONG, "--json", "--retry-for", "0") as process:
        assert read_line(process)
        began = time.monotonic()
        status, logged = server.stop()
        assert time.monotonic() - began < 5
        assert (status, "Traceback" in logged) == (0, False)
        _, printed = process.communicate(timeout=10)
    assert "shutting down" in error(Finished([], process.returncode, "", printed), 3)


# Starting and ending a server.


def refusal(*options: object, status: int = 2, **more: str) -> str:
    """Run `mnist37 serve`, which must not start, and return its one line of error."""
    defaults = ("--address", "127.0.0.1:0", "--device", "cpu", "--state", ":memory:")
    finished = subprocess.run(
        [*CLI, "serve", *defaults, *map(str, options)],
        capture_output=True,
        text=True,
        env=environment(NO_SERVER, **more),
        timeout=15,
        check=False,
    )
    assert finished.stdout == ""
    return error(finished, status)


def test_a_port_in_use_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        message = refusal("--address", address)
    assert "--address" in message
    assert address in message


@pytest.mark.parametrize("wrong", ["nonsense", "127.0.0.1", "127.0.0.1:99999"])
def test_an_invalid_address_to_listen_on_is_refused(wrong: str) -> None:
    message = refusal("--address", wrong)
    assert "--address" in message
    assert wrong in message


@pytest.mark.parametrize("wrong", ["nan", "inf", "1e300", "3000000", "-1"])
@pytest.mark.parametrize("flag", ["--shutdown-grace", "--keepalive"])
def test_invalid_or_infinite_seconds_are_refused(flag: str, wrong: str) -> None:
    message = refusal(flag, wrong)
    assert f"{flag}: got {float(wrong):g}; must be " in message


@pytest.mark.parametrize("wrong", ["tpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(wrong: str) -> None:
    message = refusal("--device", wrong)
    assert "--device" in message
    assert wrong in message


@pytest.mark.parametrize("below", ["", "below"])
def test_a_state_folder_that_is_a_file_is_refused(below: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    message = refusal("--state", file / below)
    assert "--state" in message
    assert str(file / below) in message


def test_download_without_a_folder_is_refused() -> None:
    message = refusal("--download")
    assert "--download" in message
    assert "--data-root" in message


def test_a_data_root_without_mnist_is_refused(tmp_path: Path) -> None:
    message = refusal("--data-root", tmp_path)
    assert "--data-root" in message
    assert str(tmp_path) in message
    assert list(tmp_path.iterdir()) == []


# Makes the import of the server's modules slow, and prints when it begins.
SLOW_START = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "mnist37_server.app":
            print("loading", flush=True)
            time.sleep(20)
sys.meta_path.insert(0, Slow())
"""


def test_ctrl_c_during_the_start_is_no_stack_trace(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_START)
    command = [sys.executable, "-m", "mnist37_server", "--address", "127.0.0.1:0"]
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [*command, "--state", ":memory:"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (130, "")


def pythonpath_without(module: str, folder: Path) -> str:
    """Return a PYTHONPATH that hides a module, by a file that is written to a folder."""
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules['{module}'] = None\n")
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_a_server_without_its_extra_says_how_to_install_it(tmp_path: Path) -> None:
    said = refusal(status=1, PYTHONPATH=pythonpath_without("numba", tmp_path))
    assert "pip install 'mnist37[server]'" in said
    assert "'mnist37[serve-cpu]'" in said


def test_a_demo_without_the_servers_extra_says_how_to_install_it(tmp_path: Path) -> None:
    finished = mnist37(NO_SERVER, "demo", PYTHONPATH=pythonpath_without("numba", tmp_path))
    assert finished.returncode != 0
    assert "pip install 'mnist37[server]'" in error(finished, finished.returncode)


def test_a_command_needs_no_torch(address: str, tmp_path: Path) -> None:
    assert lines(mnist37(address, "model", PYTHONPATH=pythonpath_without("torch", tmp_path)))


def test_a_server_ended_by_a_signal_exits_with_0_and_goes_on_where_it_was(tmp_path: Path) -> None:
    options = ("--device", "cpu", "--state", str(tmp_path))
    with LocalServer(*options) as first, Client(first.address) as client:
        client.initialize(seed=7)
        client.step()
        before = client.get_model()
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(timeout=15) == 0
    with LocalServer(*options) as second, Client(second.address) as client:
        after = client.get_model()
        assert (after.version, after.digest) == (before.version, before.digest)
        np.testing.assert_array_equal(after.weights, before.weights)
        second.process.send_signal(signal.SIGINT)
        assert second.process.wait(timeout=15) == 0


def test_a_second_server_on_a_state_folder_says_which_process_holds_it(tmp_path: Path) -> None:
    with LocalServer("--device", "cpu", "--state", str(tmp_path)) as server:
        message = refusal("--state", tmp_path)
        with Client(server.address) as client:
            assert client.get_model().version == 0  # the first server still works
    assert "--state" in message
    assert str(tmp_path) in message
    assert f"process {server.process.pid}" in message


@pytest.mark.alone
def test_the_demo_ends_with_a_good_model_within_15_seconds() -> None:
    began = time.monotonic()
    shown = lines(mnist37(NO_SERVER, "demo", MNIST37_DEVICE="cpu"))
    assert time.monotonic() - began < 15
    outcome = re.fullmatch(r"validation accuracy (0\.\d{4})", shown[-1])
    assert outcome
    assert float(outcome[1]) >= 0.965
    twin = Twin()
    twin.train(20)
    assert shown[-2] == f"digest {twin.digest}"
    assert max(map(len, shown)) <= 80
