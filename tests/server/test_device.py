"""What keeps a server from starting on a device, told before it begins."""

from __future__ import annotations

import pytest
import torch
from mnist37_server.app import find_device
from mnist37_server.errors import CannotStart


@pytest.fixture
def one_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as torch says; nothing is done on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.usefixtures("one_cuda_device")
def test_cuda_wants_a_c_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc")
    assert find_device("auto") == find_device("cuda") == torch.device("cuda:0")
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    for name in ("auto", "cuda", "cuda:0"):
        with pytest.raises(CannotStart, match=r"--device: .* C compiler, .* install gcc"):
            find_device(name)
    assert find_device("cpu") == torch.device("cpu")


@pytest.mark.usefixtures("one_cuda_device")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(CannotStart, match="--device: cuda:1 is not there; torch sees 1"):
        find_device("cuda:1")
