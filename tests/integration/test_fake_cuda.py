"""The server's own branches for a CUDA device, on one that is made up: support/fake_cuda.py."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mnist37_client import Client, Exhausted, Unavailable, health, validation_images
from mnist37_client.local_server import LocalServer
from support.twin import Twin, data

pytest.importorskip("triton", reason="torch is here without CUDA, and so without Triton")

FAKE = Path(__file__).parents[1] / "support" / "fake_cuda.py"
BATCH = 6_198  # two steps an epoch: the interpreter takes its time


class FakeCudaServer(LocalServer):
    """A server on a machine that seems to have a CUDA device."""

    command = (sys.executable, str(FAKE))


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Where the made-up device is told how it is; see fake_cuda."""
    folder = tmp_path / "device"
    folder.mkdir()
    monkeypatch.setenv("FAKE_CUDA", str(folder))
    monkeypatch.setenv("CC", "cc")
    return folder.__truediv__


@pytest.mark.usefixtures("tell")
def test_it_trains_and_answers_on_the_device(tmp_path: Path) -> None:
    """The CPU's results within float32, its own to the bit; and it says which device it is."""
    images, labels = validation_images()
    state = ("--state", str(tmp_path / "state"))
    found = []
    for options in (("--device", "cuda"), ("--device", "auto", *state)):
        with FakeCudaServer(*options) as server, Client(server.address) as client:
            assert health.check(server.address) == "cuda:0"
            assert client.get_model().device == "cuda:0"
            assert client.get_model().digest == Twin().digest, "drawn on the CPU"
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
    # What is left is taken up on the CPU, to the bit.
    with LocalServer("--device", "cpu", *state) as on_cpu, Client(on_cpu.address) as client:
        assert client.get_model().digest == model.digest


@pytest.mark.usefixtures("tell")
def test_a_run_that_was_killed_goes_on_there(tmp_path: Path) -> None:
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


def test_a_full_device_refuses_what_is_too_large_and_a_lost_one_all_writes(
    tell: Callable[[str], Path],
) -> None:
    images, labels = validation_images()
    with FakeCudaServer("--device", "cuda") as server:
        with Client(server.address, retry_for=0) as client:
            tell("full").write_text("1000000")
            too_large: list[Callable[[], object]] = [
                lambda: client.step(images, labels),
                lambda: client.get_loss(images=images, labels=labels),
            ]
            for ask in too_large:
                with pytest.raises(Exhausted, match=r"cuda:0 has no room for 2,038 images") as no:
                    ask()
                assert no.value.reason == "DEVICE_OUT_OF_MEMORY"
            assert client.step(images[:99], labels[:99]).version == 1, "what fits goes on"

            run = client.train(1000, batch_size=BATCH)
            reached = next(run).version
            tell("lost").touch()
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
    ("told", "content", "why"),
    [
        ("busy", "", "cuda:0 cannot be used: CUDA error: all CUDA-capable devices are busy"),
        ("full", "1000000", "cuda:0 has no room in its memory"),
        ("compiler", "", "on CUDA the kernels are built with a C compiler, and there is none"),
    ],
)
def test_a_device_that_cannot_be_used_is_refused_and_by_auto_passed_over(
    told: str,
    content: str,
    why: str,
    tell: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tell(told).write_text(content)
    if told == "compiler":
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
        assert client.get_model().digest == twin.digest, "the CPU's own bits"
        _, log = server.stop()
    warnings = [line for line in log.splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert f"no CUDA device is used: {why}" in warnings[0]
    assert warnings[0].endswith("; the model is on the CPU")


def test_a_second_server_leaves_the_device_alone(
    tell: Callable[[str], Path], tmp_path: Path
) -> None:
    """What it is told is that the state is in use, whatever the device would say."""
    state = ("--state", str(tmp_path / "state"))
    with LocalServer("--device", "cpu", *state):
        tell("busy").touch()
        with pytest.raises(Unavailable, match="is in use by another server"):
            FakeCudaServer("--device", "cuda", *state)
    with pytest.raises(Unavailable, match="--device: there is no 'gpu'"):
        FakeCudaServer("--device", "gpu", "--data-root", str(tmp_path / "nothing"))
