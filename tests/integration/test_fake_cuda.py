"""Tests of the server's branches for a CUDA device, on a simulated one: support/fake_cuda.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mnist37_client import Client, Exhausted, Unavailable, health, validation_images
from mnist37_client.local_server import LocalServer
from support.twin import Twin, data

pytest.importorskip("triton", reason="torch is installed without CUDA, and so without Triton")

FAKE = Path(__file__).parents[1] / "support" / "fake_cuda.py"
BATCH = 6_198  # two steps an epoch, because Triton's interpreter is slow


class FakeCudaServer(LocalServer):
    """A server with a simulated CUDA device."""

    command = (sys.executable, str(FAKE))


@pytest.fixture
def control(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function from a name to the file that controls the simulated device (fake_cuda)."""
    folder = tmp_path / "device"
    folder.mkdir()
    monkeypatch.setenv("FAKE_CUDA", str(folder))
    monkeypatch.setenv("CC", "cc")
    return folder.__truediv__


@pytest.mark.usefixtures("control")
def test_it_trains_and_answers_on_the_device(tmp_path: Path) -> None:
    # The results equal the CPU's within float32, and those of a second server to the bit.
    images, labels = validation_images()
    state = ("--state", str(tmp_path / "state"))
    found = []
    for options in (("--device", "cuda"), ("--device", "auto", *state)):
        with FakeCudaServer(*options) as server, Client(server.address) as client:
            assert health.check(server.address) == "cuda:0"
            assert client.get_model().device == "cuda:0"
            assert client.get_model().digest == Twin().digest, "not drawn on the CPU"
            run = client.train(2, batch_size=BATCH).wait()
            stepped = client.step()
            own = client.step(images[:300], labels[:300])
            losses = [client.get_loss("valid"), client.get_loss(images=images, labels=labels)]
            model = client.get_model()
            found.append((run.train_loss, stepped.loss, own.loss, losses[0].loss, model.digest))
            assert losses[0] == losses[1]
            status, log = server.stop()
        assert status == 0
        assert " device=cuda:0" in log
        assert "WARNING" not in log
    assert found[0] == found[1]
    twin = Twin()
    twin.train(2, batch_size=BATCH)
    twin.step()
    twin.step_on(data().valid.pixels[:300], data().valid.labels[:300])
    np.testing.assert_allclose(model.weights, twin.parameters[:-1].numpy(), atol=1e-4)
    # A server on the CPU continues with the state, to the bit.
    with LocalServer("--device", "cpu", *state) as on_cpu, Client(on_cpu.address) as client:
        assert client.get_model().digest == model.digest


@pytest.mark.usefixtures("control")
def test_a_run_that_was_killed_continues_on_the_device(tmp_path: Path) -> None:
    def train(client: Client, epochs: int) -> None:
        run = client.train(3, batch_size=BATCH, request_id="run")
        while next(run).epoch < epochs:
            pass

    state = ("--device", "cuda", "--state", str(tmp_path / "state"))
    with FakeCudaServer(*state) as server, Client(server.address, retry_for=0) as client:
        train(client, 1)
        server.kill()
    with FakeCudaServer(*state) as server, Client(server.address) as client:
        train(client, 3)
        resumed = client.get_model().digest
        client.initialize()
        client.train(3, batch_size=BATCH).wait()
        assert client.get_model().digest == resumed


@pytest.mark.usefixtures("control")
def test_patience_ends_a_run_on_the_device() -> None:
    with FakeCudaServer("--device", "cuda") as server, Client(server.address) as client:
        last = client.train(4, batch_size=BATCH, patience=1, min_delta=0.5).wait()
        assert (last.epoch, last.stopped_early) == (2, True)
        assert client.get_model().version == last.version


def test_a_full_device_refuses_large_batches_and_a_lost_one_all_writes(
    control: Callable[[str], Path],
) -> None:
    images, labels = validation_images()
    with FakeCudaServer("--device", "cuda") as server:
        with Client(server.address, retry_for=0) as client:
            control("full").write_text("1000000")
            too_large: list[Callable[[], object]] = [
                lambda: client.step(images, labels),
                lambda: client.get_loss(images=images, labels=labels),
            ]
            for ask in too_large:
                with pytest.raises(
                    Exhausted, match=r"cuda:0 has no room for 2,038 images"
                ) as refusal:
                    ask()
                assert refusal.value.reason == "DEVICE_OUT_OF_MEMORY"
            assert client.step(images[:99], labels[:99]).version == 1, "a small write must succeed"

            run = client.train(1000, batch_size=BATCH)
            reached = next(run).version
            control("lost").touch()
            writes: list[Callable[[], object]] = [run.wait, client.step, client.initialize]
            for write in writes:
                with pytest.raises(Unavailable, match="the device is lost") as lost:
                    write()
                assert lost.value.reason == "DEVICE_LOST"
            with pytest.raises(Unavailable, match="the device is lost"):
                client.get_loss("valid")
            with pytest.raises(Unavailable, match="is not serving"):
                health.check(server.address)
            assert client.predict(images).version >= reached
        _, log = server.stop()
    assert "the device is lost" in log


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("busy", "", "cuda:0 cannot be used: CUDA error: all CUDA-capable devices are busy"),
        ("full", "1000000", "cuda:0 has no room in its memory"),
        ("compiler", "", "on CUDA the kernels are built with a C compiler, and there is none"),
    ],
)
def test_an_unusable_device_is_refused_and_auto_uses_the_cpu(
    file: str,
    content: str,
    why: str,
    control: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    control(file).write_text(content)
    if file == "compiler":
        monkeypatch.delenv("CC")
        monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable) as refused:
        FakeCudaServer("--device", "cuda")
    assert f"--device: {why}" in str(refused.value)
    assert "\n" not in str(refused.value)
    with FakeCudaServer("--device", "auto") as server, Client(server.address) as client:
        assert client.get_model().device == health.check(server.address) == "cpu"
        client.train(2).wait()
        twin = Twin()
        twin.train(2)
        assert client.get_model().digest == twin.digest, "the bits must be the CPU's"
        _, log = server.stop()
    warnings = [line for line in log.splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert f"no CUDA device is used: {why}" in warnings[0]
    assert warnings[0].endswith("; the model is on the CPU")


def test_a_second_server_leaves_the_device_alone(
    control: Callable[[str], Path], tmp_path: Path
) -> None:
    # The error says that the state is in use, although the device is busy too.
    state = ("--state", str(tmp_path / "state"))
    with LocalServer("--device", "cpu", *state):
        control("busy").touch()
        with pytest.raises(Unavailable, match="is in use by another server"):
            FakeCudaServer("--device", "cuda", *state)
    with pytest.raises(Unavailable, match="--device: there is no 'gpu'"):
        FakeCudaServer("--device", "gpu", "--data-root", str(tmp_path / "nothing"))
