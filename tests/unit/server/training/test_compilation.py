"""Tests of the log message of a first start on a machine, while it compiles the kernels."""

from __future__ import annotations

import logging

import numba
import pytest
from mnist37_server.training.compilation import announce


def test_the_compilation_of_kernels_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    announce()

    def compile_and_add(added: int) -> int:
        function = numba.njit(lambda number: number + added)
        return int(function(1))

    assert [compile_and_add(1), compile_and_add(2)] == [2, 3]
    messages = [text for text in caplog.messages if "compiling the kernels" in text]
    assert messages == ["compiling the kernels for this processor, once: it takes some seconds"]
