"""Tests of every argument of every method of both clients with odd values.

Each value gets the right answer or a Mnist37Error, the same from both clients, and no warning: the
tests make an error of each.
"""

from __future__ import annotations

import decimal
import fractions
import inspect
import itertools
import math
import re
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mnist37_client import AsyncClient, Client, InvalidInput, Mnist37Error, Prediction
from mnist37_client.local_server import LocalServer
from support.both_clients import IMAGES, LABELS, AnyClient, BlockingClient

ONE = IMAGES[:4]
FLOATS = ONE.astype(np.float32) / 255


class Frame:
    """An object that says how to become an array, as pandas' DataFrame does."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return FLOATS.reshape(4, 784)


class Hostile:
    """An object that raises whenever it is used."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise OSError("no array\n\x1b[2J")

    def __index__(self) -> int:
        raise KeyError("no index")

    def __float__(self) -> float:
        raise MemoryError

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("no iterator")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def forms(images: Any) -> dict[str, Callable[[], Any]]:
    """Return makers of the arguments that are these images, given as floats in 0..1."""
    tensor = torch.from_numpy(images)
    return {
        "requires grad": lambda: tensor.clone().requires_grad_(),
        "bfloat16": tensor.bfloat16,
        "float16": tensor.half,
        "parameter": lambda: torch.nn.Parameter(tensor.clone()),
        "sparse": lambda: tensor.reshape(len(images), -1).to_sparse(),
        "not contiguous": lambda: tensor.transpose(-1, -2).contiguous().transpose(-1, -2),
        "longdouble": lambda: images.astype(np.longdouble),
        "a list": images.tolist,
        "an __array__": Frame,
        "a mask of nothing": lambda: np.ma.masked_array(images, mask=False),
        "read-only": lambda: np.broadcast_to(images, images.shape),
        "bytes in a buffer": lambda: memoryview((images * 255).round().astype(np.uint8)),
    }


ODD: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "numpy's True": lambda: np.True_,
    "-1": lambda: -1,
    "0": lambda: 0,
    "2**31": lambda: 2**31,
    "2**64": lambda: 2**64,
    "10**400": lambda: 10**400,
    "0.5": lambda: 0.5,
    "NaN": lambda: math.nan,
    "infinity": lambda: math.inf,
    "-0.0": lambda: -0.0,
    "1j": lambda: 1j,
    "a fraction": lambda: fractions.Fraction(1, 3),
    "a decimal": lambda: decimal.Decimal("NaN"),
    "numpy's int": lambda: np.int64(3),
    "numpy's float": lambda: np.float32("nan"),
    "an array of none": lambda: np.array(3),
    "an empty array": lambda: np.zeros((0, 784)),
    "an empty list": list,
    "''": lambda: "",
    "'5'": lambda: "5",
    "NUL": lambda: "\0",
    "a surrogate": lambda: "\ud800",
    "a long text": lambda: "x" * 10_000,
    "bytes": lambda: b"\xff" * 784,
    "a bytearray": lambda: bytearray(784),
    "an object": object,
    "a class": lambda: int,
    "hostile": Hostile,
    "a dict": lambda: {"pixels": 1},
    "a set": lambda: {1, 2},
    "a path": lambda: Path("three.png"),
    "a function": lambda: len,
    "a generator": lambda: (image for image in ONE),
    "an iterator": lambda: itertools.repeat(0, 784),
    "ragged": lambda: [[0] * 784, [0] * 783],
    "objects": lambda: np.full((4, 784), None),
    "texts": lambda: np.full((4, 784), "3"),
    "complex": lambda: FLOATS.astype(np.complex64),
    "dates": lambda: np.zeros((4, 784), "M8[s]"),
    "a structure": lambda: np.zeros(784, [("red", "u1"), ("green", "u1")]),
    "NaNs": lambda: np.full((4, 784), np.nan),
    "negative": lambda: -FLOATS,
    "pixels as floats": lambda: ONE.astype(float),
    "0 and 1": lambda: (ONE > 127).astype(int),
    "0 and 1 in bytes": lambda: (ONE[0] > 127).astype(np.uint8),
    "bools": lambda: ONE > 127,
    "masked": lambda: np.ma.masked_array(ONE, mask=ONE > 250),
    "masked in a list": lambda: [np.ma.masked_array(image, mask=image > 250) for image in ONE],
    "a tensor without content": lambda: torch.empty((4, 784), device="meta"),
    "a tensor that requires grad": lambda: torch.ones((), requires_grad=True),
    "tensors in a list": lambda: [torch.ones(784, requires_grad=True)],
    "a complex tensor": lambda: torch.zeros((4, 784), dtype=torch.complex64).conj(),
    "colours": lambda: np.zeros((4, 28, 28, 3), np.uint8),
    **forms(FLOATS),
}

# A call of each method that works; a test puts an odd value in the place of one argument.
NORMAL: dict[str, dict[str, Any]] = {
    "predict": {"images": ONE, "version": None, "fresh": False},
    "predict_stream": {"batches": [ONE]},
    "train": {
        "epochs": 2,
        "learning_rate": 1.0,
        "batch_size": None,
        "seed": None,
        "name": None,
        "schedule": "linear",
        "final_learning_rate": 0.5,
        "warmup_epochs": None,
        "patience": 1,
        "min_delta": None,
        "request_id": None,
    },
    "step": {"images": ONE, "labels": LABELS[:4], "learning_rate": None, "request_id": None},
    "get_loss": {
        "split": None,
        "images": ONE,
        "labels": LABELS[:4],
        "version": None,
        "fresh": False,
    },
    "initialize": {"seed": None, "std": None, "request_id": None},
    "get_model": {"version": None, "fresh": False},
    "versions": {"limit": 3},
    "restore": {"version": 0, "request_id": None},
    "import_model": {"weights": np.zeros(784), "bias": 0.0, "request_id": None},
    "tag_version": {"name": "odd", "version": 0, "request_id": None},
    "followers": {},
    "tags": {},
    "delete_tag": {"name": "odd", "request_id": None},
    "runs": {"name": None, "state": None, "limit": 3},
    "watch_run": {"run": None, "follow": False},
    "close": {},
}
SETTINGS = set(inspect.signature(AsyncClient).parameters) - {"address", "merge", "insecure"}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Client, BlockingClient]]:
    """Return a client of each kind, of a server with a run."""
    with LocalServer("--device", "cpu") as server, Client(server.address, timeout=20) as client:
        client.train(2).wait()
        other = BlockingClient(server.address, timeout=20)
        yield client, other
        other.stop()


def test_the_table_has_every_argument_of_every_method() -> None:
    assert {name: list(arguments) for name, arguments in NORMAL.items()} == {
        name: list(inspect.signature(method).parameters)[1:]
        for name, method in inspect.getmembers(Client, inspect.isfunction)
        if not name.startswith("_")
    }


def call(client: AnyClient, method: str, arguments: dict[str, Any]) -> Any:
    """Make a call and read what it returns; leave a run after its first epoch."""
    if method == "delete_tag":
        client.tag_version("odd")  # so that there is something to delete
    result = getattr(client, method)(**arguments)
    if method == "train":
        with result as run:
            return next(run)
    return list(itertools.islice(result, 3)) if isinstance(result, Iterator) else result


def outcome(client: AnyClient, method: str, arguments: dict[str, Any]) -> str:
    """Return the type of a call's result, or of its error with the text."""
    try:
        return type(call(client, method, arguments)).__name__
    except Mnist37Error as error:
        text = re.sub(r"x[0-9a-f]{6,}", "ADDRESS", str(error))  # of an object, in its repr
        return f"{type(error).__name__}: {text}"


@pytest.mark.parametrize(
    ("method", "argument"),
    [(method, argument) for method, arguments in NORMAL.items() for argument in arguments],
)
def test_an_odd_value_is_answered_or_refused_alike(
    pair: tuple[Client, BlockingClient],
    method: str,
    argument: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for what, make in ODD.items():
        if argument == "batches" and what == "bytes in a buffer":
            continue  # it raises when it is iterated over, as a caller's own iterator may
        outcomes = []
        for client in pair:
            arguments = NORMAL[method] | {argument: make()}
            outcomes.append(outcome(client, method, arguments))
        assert len(set(outcomes)) == 1, (what, outcomes)
        assert outcomes[0].isprintable(), what
        assert "internal error" not in outcomes[0], what
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("setting", sorted(SETTINGS))
def test_an_odd_setting_is_taken_or_refused(
    kind: type[Client] | type[AsyncClient], setting: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for what, make in ODD.items():
        settings = {setting: make()}
        if setting in {"tls_cert", "tls_key", "tls_server_name"}:
            settings["tls_ca"] = "public"
        if setting in {"tls_cert", "tls_key"}:
            settings |= {"tls_cert": make(), "tls_key": make()}
        text = ""
        try:
            kind("127.0.0.1:1", **settings)
        except InvalidInput as error:
            text = str(error)
        except BaseException as error:
            raise AssertionError(what) from error
        assert text.isprintable(), what
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("form", forms(FLOATS))
def test_images_of_every_form_are_answered_by_every_method(
    pair: tuple[Client, BlockingClient], form: str
) -> None:
    make = forms(FLOATS)[form]
    precision = 2e-2 if form == "bfloat16" else 1e-6  # it has 8 bits
    for client in pair:
        expected = client.predict(ONE).probabilities
        np.testing.assert_allclose(client.predict(make()).probabilities, expected, atol=precision)
        (streamed,) = client.predict_stream([make()])
        np.testing.assert_allclose(streamed.probabilities, expected, atol=precision)
        assert client.get_loss(images=make(), labels=LABELS[:4]).count == 4
        assert client.step(make(), LABELS[:4]).version > 0


AMBIGUOUS = ["0 and 1", "0 and 1 in bytes", "masked", "masked in a list"]


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_images_that_may_mean_two_things_are_refused(
    pair: tuple[Client, BlockingClient], what: str
) -> None:
    text = r"^images: got (whole numbers that are all 0 or 1|masked values); must be"
    batch = {"images": ODD[what](), "labels": LABELS[: 1 if what.endswith("bytes") else 4]}
    for client in pair:
        for method in ("predict", "step", "get_loss"):
            arguments = NORMAL[method] | batch
            if method == "predict":
                del arguments["labels"]
            with pytest.raises(InvalidInput, match=text):
                call(client, method, arguments)
        with pytest.raises(InvalidInput, match=text):
            list(client.predict_stream([batch["images"]]))


def test_a_blank_image_and_a_black_and_white_one_are_not_ambiguous(
    pair: tuple[Client, BlockingClient],
) -> None:
    drawn = ONE[0] > 127
    for client in pair:
        assert isinstance(client.predict(np.zeros((28, 28), np.uint8)), Prediction)
        expected = client.predict(255 * drawn.astype(np.uint8)).probabilities
        for images in (drawn, drawn.astype(float), 255 * drawn.astype(int)):
            np.testing.assert_array_equal(client.predict(images).probabilities, expected)


def test_the_parameters_of_a_linear_layer_are_imported(
    pair: tuple[Client, BlockingClient],
) -> None:
    linear = torch.nn.Linear(784, 1)
    for client in pair:
        client.import_model(linear.weight, linear.bias)
        model = client.get_model()
        np.testing.assert_array_equal(model.weights, linear.weight.detach().numpy()[0])
        assert model.bias == linear.bias.item()


@pytest.mark.parametrize("what", ["None", "0.5", "an object", "hostile", "an array of none"])
def test_batches_that_are_no_iterable_are_named(
    pair: tuple[Client, BlockingClient], what: str
) -> None:
    for client in pair:
        with pytest.raises(InvalidInput, match=r"^batches: got .*; must be an iterable of images"):
            list(client.predict_stream(ODD[what]()))


def test_what_a_callers_batches_raise_is_raised(pair: tuple[Client, BlockingClient]) -> None:
    def batches() -> Iterator[Any]:
        yield ONE
        raise FileNotFoundError("the third")

    for client in pair:
        answers = client.predict_stream(batches())
        assert len(next(answers).probabilities) == 4
        with pytest.raises(FileNotFoundError, match="the third"):
            next(answers)


def test_only_asyncclient_takes_an_async_iterable(pair: tuple[Client, BlockingClient]) -> None:
    async def batches() -> AsyncIterator[Any]:
        yield ONE

    blocking, other = pair
    assert len(list(other.predict_stream(batches()))) == 1
    with pytest.raises(InvalidInput, match=r"^batches: got async_generator"):
        list(blocking.predict_stream(batches()))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Client, BlockingClient])
@pytest.mark.parametrize("timeout", [math.inf, 1e300, 10**400, 1e10, 1e9, np.float32(5), None])
def test_a_long_timeout_is_no_timeout(
    pair: tuple[Client, BlockingClient], kind: Any, timeout: Any
) -> None:
    client = kind(pair[0].address, timeout=timeout)
    assert client.get_model().version >= 0
    client.stop() if isinstance(client, BlockingClient) else client.close()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("wrong", [math.nan, -1, -math.inf, True, np.True_, "5", b"5", [5], 1j])
@pytest.mark.parametrize("setting", ["timeout", "retry_for"])
def test_a_time_that_is_none_is_refused(
    kind: type[Client] | type[AsyncClient], setting: str, wrong: Any
) -> None:
    with pytest.raises(InvalidInput, match=rf"^{setting}: got .*; must be seconds"):
        kind(**{setting: wrong})


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_timeout_of_0_is_refused_and_no_retries_are_not(
    kind: type[Client] | type[AsyncClient],
) -> None:
    with pytest.raises(InvalidInput, match=r"^timeout: got 0; must be seconds, above 0"):
        kind(timeout=0)
    kind(retry_for=0)
    kind(retry_for=math.inf)
    with pytest.raises(InvalidInput, match=r"^retry_for: got None"):
        kind(retry_for=None)  # type: ignore[arg-type]
