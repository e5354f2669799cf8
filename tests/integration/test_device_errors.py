"""Tests of a device that is full or lost: clear errors, no lost data, and predictions continue.

They need no device: the tests raise torch's own errors where torch raises them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn, Self

import numpy as np
import pytest
import torch
from mnist37_client import Client, Exhausted, ServerError, Unavailable, health, validation_images
from mnist37_server.config import Config
from mnist37_server.engine.live_model import LiveModel
from mnist37_server.rpc.server import build
from mnist37_server.services import health as health_service
from mnist37_server.services import mnist37_service
from mnist37_server.storage.store import Store
from mnist37_server.training.device import DeviceUnusable, place_images_on
from mnist37_server.training.trainer import Trainer
from numpy.typing import NDArray
from support.twin import Twin, data

from mnist37.cuda import Cuda
from mnist37.examples import SliceOutput, StepsOutput, TrainingSlice
from mnist37.host import Host, HostExamples
from mnist37.kernels import Floats, Labels, Pixels
from mnist37.losses import LossSums
from mnist37.optimizer import Sgd
from mnist37.training import Datasets

FULL = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 12.00 MiB. Process 4711 has"),
    torch.AcceleratorError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
)
LOST = torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nat /usr/lib")
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


class Failing(HostExamples):
    """Images on a device that works until `error` is set, and then raises it."""

    error: Exception | None = None

    def sgd(self, parameters: Floats, order: NDArray[np.int64], batch_size: int, sgd: Sgd) -> int:
        total = super().sgd(parameters, order, batch_size, sgd)
        if Failing.error is not None:  # the parameters have changed already
            raise Failing.error
        return total

    def steps(
        self,
        parameters: Floats,
        order: NDArray[np.int64],
        batch_size: int,
        settings: Sequence[Sgd],
        bound: float,
    ) -> StepsOutput:
        found = super().steps(parameters, order, batch_size, settings, bound)
        if Failing.error is not None:
            raise Failing.error
        return found

    def train(self, parameters: Floats, part: TrainingSlice, valid: Self) -> SliceOutput:
        found = super().train(parameters, part, valid)
        if Failing.error is not None:
            raise Failing.error
        return found

    def sum_losses(self, parameters: Floats) -> LossSums:
        if Failing.error is not None:
            raise Failing.error
        return super().sum_losses(parameters)


class FailingDevice(Host):
    def load_images(self, pixels: Pixels, labels: Labels) -> Failing:
        return Failing(pixels, labels)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LiveModel]:
    monkeypatch.setattr(Failing, "error", None)
    device = FailingDevice()
    model = LiveModel(Datasets(data(), device), device, Store(tmp_path))
    yield model
    model.stop_writing()
    model.close()


@pytest.fixture
def address(model: LiveModel) -> Iterator[str]:
    """Return the address of a server with this model, with the parts of the real one."""
    config = Config("127.0.0.1:0")
    server, address = build(config)
    mnist37_service.add_to(server, model, model, config.max_rpcs, config.max_streams)
    with ThreadPoolExecutor() as probes:
        model.on_writes_lost = health_service.add_to(
            server, [mnist37_service.SERVICE], probes, "cpu"
        ).begin_shutdown
        server.start()
        yield str(address)
        server.stop(0).wait()


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    """Return a client that does not retry."""
    with Client(address, retry_for=0) as client:
        yield client


@pytest.mark.parametrize("error", FULL)
def test_a_full_device_fails_only_calls_that_need_memory(
    client: Client, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    twin = Twin()
    images, _ = validation_images()
    run = client.train(500, request_id="run")
    next(run)
    monkeypatch.setattr(Failing, "error", error)
    batch = images[:5], [1] * 5
    for ask, said in (
        (run.wait, "cpu has no room left .* is kept"),
        (lambda: client.step(request_id="step"), "cpu has no room left"),
        (lambda: client.step(*batch), "batch: cpu has no room for 5 images; .* send fewer"),
        (lambda: client.get_loss("valid"), "cpu has no room left"),
    ):
        with pytest.raises(Exhausted, match=said) as refused:
            ask()
        assert refused.value.reason == "DEVICE_OUT_OF_MEMORY"
        assert not {"4711", "TORCH_USE", "Triton"} & set(str(refused.value).split())
    reached = client.predict(images).version // 49
    assert 0 < reached < 500
    twin.train(reached)
    assert client.get_model().digest == twin.digest

    monkeypatch.setattr(Failing, "error", None)
    client.train(500, request_id="run").wait()
    twin.train(500 - reached, first=reached + 1)
    client.step(request_id="step")
    twin.step()
    assert client.get_model().digest == twin.digest
    assert client.get_loss("valid").count == 2038


def test_an_error_that_the_device_survives_fails_only_one_call(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "error", LOST)
    for ask in (client.step, lambda: client.get_loss("valid")):
        with pytest.raises(ServerError, match="internal error") as fault:
            ask()
        assert "illegal" not in str(fault.value)
    monkeypatch.setattr(Failing, "error", None)
    assert client.step().version == 1


def test_a_lost_device_ends_a_run_and_all_writes_and_is_seen_by_probes(
    client: Client, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # During a run the device is lost, as CUDA loses it: from then on every operation fails.
    images, _ = validation_images()
    health.check(address)
    run = client.train(100_000, request_id="run")
    next(run)

    def gone(*_: object) -> NoReturn:
        raise LOST

    monkeypatch.setattr(Failing, "error", LOST)
    monkeypatch.setattr(Trainer, "reset", gone)
    for ask in (run.wait, client.step, client.initialize):
        with pytest.raises(Unavailable, match=r"the device is lost .* started again") as refused:
            ask()
        assert (refused.value.reason, refused.value.retry_after) == ("DEVICE_LOST", 5.0)
        assert "illegal" not in str(refused.value)
    with pytest.raises(Unavailable, match="is not serving"):
        health.check(address)
    reached = client.predict(images).version
    twin = Twin()
    twin.train(reached // 49)
    assert client.get_model().digest == twin.digest, "the committed epochs must be complete"


@no_cuda
def test_get_loss_may_be_the_first_to_notice_a_lost_device(
    model: LiveModel, client: Client
) -> None:
    # There is no driver, so torch raises the error of a lost device.
    model._evaluator.device = Cuda(torch.device("cuda:0"))
    for ask in (lambda: client.get_loss("valid"), client.step, lambda: client.get_loss("train")):
        with pytest.raises(Unavailable, match="the device is lost") as refused:
            ask()
        assert refused.value.reason == "DEVICE_LOST"
    assert client.predict(validation_images()[0]).version == 0


@no_cuda
def test_a_device_that_cannot_be_used_is_one_line_at_the_start() -> None:
    with pytest.raises(DeviceUnusable, match=r"^cuda:0 cannot be used: ") as error:
        place_images_on(Cuda(torch.device("cuda:0")), data())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("error", FULL)
def test_a_full_device_is_one_line_at_the_start(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr("mnist37_server.training.device.Datasets", full)
    with pytest.raises(DeviceUnusable, match=r"^cuda:0 has no room in its memory$") as no:
        place_images_on(Cuda(torch.device("cuda:0")), data())
    assert no.value.advice == "end what else is on it"
