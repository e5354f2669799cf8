"""What keeps a server from starting on a device, told before it begins."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from mnist37_server.errors import CannotStart
from mnist37_server.training import device
from mnist37_server.training.device import Unusable, cuda_is_there, find_device, place
from support.twin import data


@pytest.fixture
def one_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as torch says; nothing is done on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.usefixtures("one_cuda_device")
def test_cuda_wants_a_c_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc")
    assert find_device("cuda") == torch.device("cuda:0")
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(CannotStart, match=r"--device: .* C compiler, .*; install gcc, or use"):
            place(name, data())
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("one_cuda_device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(CannotStart, match="--device: cuda:1 is not there; torch sees 1"):
        place("cuda:1", data())
    for name in ("gpu", "mps", "cpu:1", "cuda:x", ""):
        with pytest.raises(CannotStart, match=r"--device: there is no .*; use auto, cpu, cuda or"):
            place(name, data())


def test_why_torch_finds_no_device_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """By torch, in a warning; or by the release of torch, where there is a driver."""

    def outdated() -> bool:
        warnings.warn("CUDA initialization: the driver is too old\n(found 10.1)", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", outdated)
    _, found = place("auto", data())
    assert found == torch.device("cpu")
    (said,) = caplog.messages
    assert said.startswith("no CUDA device is used: CUDA initialization: the driver is too old;")
    with pytest.raises(CannotStart, match="--device: CUDA initialization: the driver is too old;"):
        place("cuda", data())

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(device, "NVIDIA_DRIVER", tmp_path / "none")
    assert not cuda_is_there()
    monkeypatch.setattr(device, "NVIDIA_DRIVER", tmp_path)
    with pytest.raises(Unusable, match="this torch is a build without CUDA"):
        cuda_is_there()
