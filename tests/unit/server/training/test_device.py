"""Tests of the choice of a device at the start, and of the errors that prevent its use."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from mnist37_server.errors import CannotStart
from mnist37_server.training import device
from mnist37_server.training.device import (
    check_name,
    driver_finds_device,
    find_device,
    place_images,
)
from support.twin import data


@pytest.fixture
def one_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch report one CUDA device, which must not be used."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.usefixtures("one_cuda_device")
def test_cuda_requires_a_c_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc")
    assert str(find_device("cuda")) == "cuda:0"
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(CannotStart, match=r"--device: .* C compiler, .*; install gcc, or use"):
            place_images(name, data())
    assert str(find_device("cpu")) == "cpu"


@pytest.mark.usefixtures("one_cuda_device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(CannotStart, match="--device: cuda:1 is not there; torch sees 1"):
        place_images("cuda:1", data())
    for name in ("gpu", "mps", "cpu:1", "cuda:x", ""):
        with pytest.raises(CannotStart, match=r"--device: there is no .*; use auto, cpu, cuda or"):
            check_name(name)
    for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:15"):
        check_name(name)


def test_the_message_says_why_no_device_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The reason is torch's warning, or that there is no torch with CUDA.

    def outdated() -> bool:
        warnings.warn("CUDA initialization: the driver is too old\n(found 10.1)", stacklevel=1)
        return False

    def auto() -> str:
        caplog.clear()
        _, found = place_images("auto", data())
        assert str(found) == "cpu"
        (said,) = caplog.messages
        assert said.endswith("; the model is on the CPU")
        return said

    monkeypatch.setattr(device, "driver_finds_device", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", outdated)
    assert "no CUDA device is used: CUDA initialization: the driver is too old;" in auto()
    with pytest.raises(CannotStart, match="--device: CUDA initialization: the driver is too old;"):
        place_images("cuda", data())

    monkeypatch.setattr(torch.version, "cuda", None)
    assert "this torch is a build without CUDA" in auto()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "CUDA needs torch, which is not installed" in auto()
    with pytest.raises(CannotStart, match=r"install it: pip install 'mnist37\[server\]', or use"):
        place_images("cuda", data())


@pytest.mark.parametrize(("answer", "found"), [(0, True), (100, False), (803, True)])
def test_the_driver_is_asked_without_torch(
    answer: int, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 100 is CUDA_ERROR_NO_DEVICE. After another error, torch's warning gives the reason.
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(cuInit=lambda _: answer))
    assert driver_finds_device() is found


def test_without_a_driver_there_is_no_device(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(device, "DRIVER", "libcuda-is-not-there.so.1")
    assert not driver_finds_device()
    assert str(place_images("auto", data())[1]) == "cpu"
    assert not caplog.messages


@pytest.mark.usefixtures("one_cuda_device")
@pytest.mark.parametrize(
    ("module", "said"),
    [("torch", "torch cannot be loaded: "), ("mnist37.cuda", "Triton cannot be loaded: ")],
)
def test_a_server_starts_although_torch_or_triton_cannot_be_loaded(
    module: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", "cc")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(device, "driver_finds_device", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setitem(sys.modules, module, None)
    assert str(place_images("auto", data())[1]) == "cpu"
    (warning,) = caplog.messages
    assert warning.startswith(f"no CUDA device is used: {said}")
    with pytest.raises(CannotStart, match=f"--device: {said}"):
        place_images("cuda", data())
