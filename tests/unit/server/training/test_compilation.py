"""A first start on a machine says what it does meanwhile."""

from __future__ import annotations

import logging

import numba
import pytest
from mnist37_server.training.compilation import announce


def test_that_kernels_are_compiled_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    announce()

    def compiled(added: int) -> int:
        function = numba.njit(lambda number: number + added)
        return int(function(1))

    assert [compiled(1), compiled(2)] == [2, 3]
    said = [text for text in caplog.messages if "compiling the kernels" in text]
    assert said == ["compiling the kernels for this processor, once: it takes some seconds"]
