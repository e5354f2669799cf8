"""Tests of TensorBoard's event files: what they have of a run, and what cannot be written."""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mnist37_client import Client, InvalidInput, NotFound, Progress, Run
from mnist37_client.local_server import LocalServer
from mnist37_client.tensorboard import SEVEN, THREE, TensorBoardLog, draw_weights
from PIL import Image
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event

CLI = (sys.executable, "-m", "mnist37_client.cli")
FILE_BYTES_MAX = 8_192  # with the limit of a process, in place of a full disk


def mnist37(address: str, *arguments: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    rest = {name: value for name, value in os.environ.items() if not name.startswith("MNIST37_")}
    return subprocess.run(
        [*CLI, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**rest, "MNIST37_ADDRESS": address},
        timeout=60,
        check=False,
        **settings,
    )


def masked_crc(content: bytes) -> int:
    """Return the checksum of TensorFlow's record files (tensorflow/core/lib/hash/crc32c.h)."""
    crc: int = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_events(folder: Path) -> list[Any]:
    """Return the events in the one file of a folder, with their checksums checked."""
    (file,) = folder.iterdir()
    assert file.name.startswith("events.out.tfevents.")
    content, events = file.read_bytes(), []
    while content:
        header, (size,) = content[:8], struct.unpack("<Q", content[:8])
        body = content[12 : 12 + size]
        checksums = content[8:12] + content[12 + size : 16 + size]
        assert struct.unpack("<II", checksums) == (masked_crc(header), masked_crc(body))
        events.append(Event.FromString(body))
        content = content[16 + size :]
    return events


def values(events: list[Any], tag: str) -> list[tuple[int, float]]:
    """Return the steps and the values of a scalar."""
    return [
        (event.step, value.simple_value)
        for event in events
        for value in event.summary.value
        if value.tag == tag
    ]


def test_the_files_have_the_curve_the_settings_and_the_weights(
    client: Client, address: str, tmp_path: Path
) -> None:
    process = mnist37(address, "train", 6, "--name", "monday", "--tensorboard", tmp_path / "live")
    assert (process.returncode, process.stderr) == (0, "")
    items = list(client.watch_run())
    (run,) = (item for item in items if isinstance(item, Run))
    curve = [item for item in items if isinstance(item, Progress)]
    assert run.started_at is not None
    process = mnist37(address, "runs", run.run, "--json", "--tensorboard", tmp_path / "later")
    assert (process.returncode, process.stderr) == (0, "")

    for folder in ("live", "later"):
        events = read_events(tmp_path / folder / f"run-{run.run}")
        for tag, name in (
            ("loss/training", "train_loss"),
            ("loss/validation", "valid_loss"),
            ("accuracy/validation", "valid_accuracy"),
        ):
            expected = [(each.epoch, float(np.float32(getattr(each, name)))) for each in curve]
            assert values(events, tag) == expected
        pictures = {
            event.step: value.image.encoded_image_string
            for event in events
            for value in event.summary.value
            if value.tag == "weights"
        }
        assert list(pictures) == [1, 2, 4, 6]
        model = client.get_model(version=curve[-1].version)
        with Image.open(io.BytesIO(pictures[6])) as picture:
            assert np.array_equal(np.asarray(picture), draw_weights(model.weights))

    texts = [value.tensor for value in events[1].summary.value]
    assert b"| name | monday |\n| epochs | 6 |" in texts[0].string_val[0]
    times = [event.wall_time for event in events if values([event], "loss/training")]
    began = run.started_at.timestamp()
    assert times == pytest.approx([began + each.elapsed for each in curve])


def test_a_log_has_a_folder_for_each_run(client: Client, tmp_path: Path) -> None:
    with TensorBoardLog(tmp_path) as log:
        runs = []
        for epochs in (2, 1):
            for progress in client.train(epochs):
                log.add(progress)
            runs.append(progress.run)
    for run, epochs in zip(runs, (2, 1), strict=True):
        steps = [step for step, _ in values(read_events(tmp_path / f"run-{run}"), "loss/training")]
        assert steps == list(range(1, epochs + 1))


def test_weights_that_the_server_has_no_more_are_left_out(client: Client, tmp_path: Path) -> None:
    def get_model(version: int) -> Any:
        raise NotFound(f"version {version} is gone")

    curve = list(TensorBoardLog(tmp_path).record(client.train(2), get_model))
    events = read_events(tmp_path / f"run-{curve[0].run}")
    assert len(values(events, "loss/training")) == 2
    assert not values(events, "weights")


def test_a_positive_weight_has_the_colour_of_a_three_and_a_zero_is_white() -> None:
    weights = np.zeros(784, np.float32)
    assert (draw_weights(weights) == 255).all()
    weights[:392], weights[392:783] = 2, -2
    picture = draw_weights(weights)
    assert picture.shape == (224, 224, 3)
    assert tuple(picture[0, 0]) == THREE
    assert tuple(picture[120, 0]) == SEVEN
    assert tuple(picture[-1, -1]) == (255, 255, 255)


def test_a_folder_that_cannot_be_made_is_refused_before_the_run_begins(
    client: Client, address: str, tmp_path: Path
) -> None:
    version = client.get_model().version
    file = tmp_path / "file"
    file.touch()
    process = mnist37(address, "train", 3, "--tensorboard", file)
    assert process.returncode == 2
    assert (
        process.stderr == f"mnist37: {file}: TensorBoard's files cannot be written: File exists\n"
    )
    assert client.get_model().version == version


def test_without_tensorboardx_the_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InvalidInput, match=r"pip install 'mnist37\[tensorboard\]'$"):
        TensorBoardLog(tmp_path)


def test_a_full_disk_ends_the_command_with_a_line_and_the_run_stops(
    server: LocalServer, tmp_path: Path
) -> None:
    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))

    process = mnist37(
        server.address,
        *("train", 1_000_000, "--json", "--tensorboard", tmp_path),
        preexec_fn=limit_files,
    )
    assert process.returncode == 2
    assert process.stderr == (
        f"mnist37: {tmp_path}: TensorBoard's files cannot be written: File too large\n"
    )
    with Client(server.address) as client:
        client.step()  # waits for the end of the run
        assert client.runs()[0].state == "interrupted"
