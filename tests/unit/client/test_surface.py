"""Tests of the package's public names: equal for both clients, and loaded only when used."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import Any

import pytest
from mnist37_client import AsyncClient, AsyncTrainingRun, Client, TrainingRun


def methods(kind: type) -> dict[str, list[tuple[str, Any, Any, Any]]]:
    """Return the public methods and __init__ of a class, with the parameters of each.

    A property is a method with `self` alone.
    """
    names = [name for name in dir(kind) if not name.startswith("_")]
    found = {name: getattr(kind, name) for name in [*names, "__init__"]}
    found = {name: getattr(method, "fget", method) for name, method in found.items()}
    return {
        name: [
            (parameter.name, parameter.kind, parameter.default, parameter.annotation)
            for parameter in inspect.signature(method).parameters.values()
        ]
        for name, method in found.items()
    }


def test_both_clients_have_the_same_methods() -> None:
    blocking, awaited = methods(Client), methods(AsyncClient)
    # The first difference: AsyncClient's batches may come from an async iterator.
    *_, (name, kind, default, annotation) = awaited["predict_stream"]
    assert annotation == "Iterable[ArrayLike] | AsyncIterable[ArrayLike]"
    awaited["predict_stream"][-1] = (name, kind, default, "Iterable[ArrayLike]")
    # The second difference: AsyncClient has the parameter `merge`.
    awaited["__init__"] = [value for value in awaited["__init__"] if value[0] != "merge"]
    assert blocking == awaited
    assert set(blocking) >= {"predict", "predict_stream", "train", "step", "get_loss"}
    assert set(blocking) >= {"initialize", "get_model", "close"}


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_methods_say_their_arguments_and_their_errors(kind: type) -> None:
    for name, (_, *parameters) in methods(kind).items():
        text = str(inspect.getdoc(getattr(kind, name)))
        if (
            name == "__init__"
            or not parameters
            or f"those of Client.{name}" in " ".join(text.split())
        ):
            continue
        for parameter, *_ in parameters:
            assert f"\n    {parameter}: " in text.partition("\nArgs:")[2], (name, parameter)
        assert "\nRaises:\n    InvalidInput: " in text, name


def test_both_runs_have_the_same_methods() -> None:
    blocking, awaited = methods(TrainingRun), methods(AsyncTrainingRun)
    del blocking["__init__"], awaited["__init__"]  # called by the clients only
    assert blocking == awaited
    properties = {"run", "name", "request_id", "progress"}
    assert set(blocking) == {"wait", "waits_for", "cancel"} | properties


LOADS = """
import json, sys, time
began = time.perf_counter()
from mnist37_client import validation_images
took = time.perf_counter() - began
first = list(sys.modules)
validation_images()
print(json.dumps([took, first, list(sys.modules)]))
"""


@pytest.mark.alone
def test_importing_the_client_is_light() -> None:
    took = []
    for _ in range(5):
        printed = subprocess.run(
            [sys.executable, "-c", LOADS], check=True, capture_output=True, text=True
        ).stdout
        seconds, first, later = json.loads(printed)
        took.append(seconds)
        heavy = {"torch", "torchvision", "mnist37.data", "mnist37_server"}
        heavy |= {"rich", "PIL", "plotext", "grpc_status"}
        assert not heavy & set(first)
        assert "mnist37" not in first
        assert not heavy & set(later)  # nor are the shipped images read with torch
    assert min(took) < 0.3


def test_the_package_lists_its_public_names() -> None:
    # Each name is imported at its first use.
    script = """
import mnist37_client
before = set(dir(mnist37_client))
assert before >= set(mnist37_client.__all__), before
from mnist37_client import *
assert {name for name in mnist37_client.__all__ if name in globals()} == set(mnist37_client.__all__)
assert issubclass(NotFound, Mnist37Error) and Client is mnist37_client.Client
try:
    mnist37_client.nothing
except AttributeError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout == "module 'mnist37_client' has no attribute 'nothing'\n"
