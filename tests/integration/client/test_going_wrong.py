"""Tests of both clients' errors: bad values, servers that do not answer, and closed clients."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from mnist37_client import (
    AsyncClient,
    Cancelled,
    Client,
    DeadlineExceeded,
    InvalidInput,
    Unavailable,
)
from mnist37_client.local_server import LocalServer
from support.both_clients import (
    ENDLESS_EPOCHS,
    IMAGES,
    AnyClient,
    MakeClient,
    assert_no_run,
    new_request_id,
)

BAD: dict[str, tuple[Callable[[AnyClient], object], str]] = {
    # refused by the server
    "no epochs": (lambda c: c.train(0).wait(), "epochs"),
    "batch_size 0": (lambda c: c.train(1, batch_size=0).wait(), "batch_size"),
    "learning_rate NaN": (lambda c: c.step(learning_rate=math.nan), "learning_rate"),
    "std -1": (lambda c: c.initialize(std=-1), "std"),
    "label 2": (lambda c: c.step(IMAGES[:2], [1, 2]), "labels"),
    "labels too few, step": (lambda c: c.step(IMAGES[:2], [1]), "labels"),
    "request_id ''": (lambda c: c.step(request_id=""), "request_id"),
    "request_id long": (lambda c: c.initialize(request_id="x" * 129), "request_id"),
    # refused before anything is sent
    "epochs -1": (lambda c: c.train(-1), "epochs"),
    "epochs 1.5": (lambda c: c.train(1.5), "epochs"),  # type: ignore[arg-type]
    "epochs 2**32": (lambda c: c.train(2**32), "epochs"),
    "batch_size -1": (lambda c: c.train(1, batch_size=-1), "batch_size"),
    "seed 2**64": (lambda c: c.train(1, seed=2**64), "seed"),
    "seed -1": (lambda c: c.initialize(seed=-1), "seed"),
    "learning_rate text": (
        lambda c: c.step(learning_rate="fast"),  # type: ignore[arg-type]
        "learning_rate",
    ),
    "learning_rate endless": (lambda c: c.step(learning_rate=10**400), "learning_rate"),
    "std text": (lambda c: c.initialize(std="wide"), "std"),  # type: ignore[arg-type]
    "request_id 5": (lambda c: c.step(request_id=5), "request_id"),  # type: ignore[arg-type]
    "predict version -1": (lambda c: c.predict(IMAGES[0], version=-1), "version"),
    "predict version 2**64": (lambda c: c.predict(IMAGES[0], version=2**64), "version"),
    "get_loss version -1": (lambda c: c.get_loss("valid", version=-1), "version"),
    "get_loss images version -1": (
        lambda c: c.get_loss(images=IMAGES[:1], labels=[1], version=-1),
        "version",
    ),
    "images shape": (lambda c: c.predict(np.zeros(7)), "images"),
    "images NaN": (lambda c: c.step(np.full(784, np.nan), [1]), "images"),
    "labels floats": (lambda c: c.step(IMAGES[:1], [0.5]), "labels"),
    "labels missing": (lambda c: c.step(IMAGES[:1]), "labels"),
    "images missing": (lambda c: c.get_loss(labels=[1]), "images"),
    "labels too few": (lambda c: c.get_loss(images=IMAGES[:2], labels=[1]), "labels"),
    "nothing": (lambda c: c.get_loss(), "(split|images|labels)"),
    "split unknown": (lambda c: c.get_loss("test"), "split"),  # type: ignore[arg-type]
    "split and images": (lambda c: c.get_loss("valid", images=IMAGES[:1], labels=[1]), "split"),
    "step too large": (
        lambda c: c.step(np.broadcast_to(np.uint8(0), (85_488, 784)), np.zeros(85_488, int)),
        "images",
    ),
}


@pytest.mark.parametrize(("call", "field"), BAD.values(), ids=BAD)
def test_a_bad_value_is_named_and_changes_nothing(
    caller: AnyClient, call: Callable[[AnyClient], object], field: str
) -> None:
    version = caller.get_model().version
    with pytest.raises(InvalidInput, match=rf"^(batch\.)?{field}: ") as refused:
        call(caller)
    assert isinstance(refused.value, ValueError)
    assert caller.get_model().version == version


CALLS: dict[str, Callable[[AnyClient], object]] = {
    "predict": lambda client: client.predict(IMAGES[0]),
    "predict_stream": lambda client: list(client.predict_stream([IMAGES[0]])),
    "train": lambda client: client.train(1).wait(),
    "initialize": lambda client: client.initialize(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_address_without_a_listener(
    make: MakeClient, call: Callable[[AnyClient], object]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(Unavailable, match=f"no server listens at {address}; is the server running"):
        call(make(address))
    assert time.monotonic() - began < 3


def test_a_listener_that_never_answers(make: MakeClient) -> None:
    # The kernel accepts the connection; no process reads from it.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(Unavailable, match=address):
            make(address).predict(IMAGES[0])
        assert time.monotonic() - began < 3.5


def test_a_step_that_comes_too_late_in_the_queue_is_not_done(
    make: MakeClient, address: str, caller: AnyClient
) -> None:
    hasty = make(address, timeout=0.2)
    name = new_request_id()
    with caller.train(ENDLESS_EPOCHS) as run:
        next(run)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="did not answer within the timeout"):
            hasty.step(request_id=name)
        assert 0.15 < time.monotonic() - began < 2
        next(run)
    version = assert_no_run(caller)
    assert caller.step(request_id=name).version == version + 1  # the late step was not done


def test_a_run_has_no_timeout(make: MakeClient, address: str) -> None:
    hasty = make(address, timeout=0.2)
    with hasty.train(ENDLESS_EPOCHS) as run:
        while next(run).elapsed < 0.5:
            pass


def test_closing_the_client_ends_its_run(caller: AnyClient, client: Client) -> None:
    run = caller.train(ENDLESS_EPOCHS)
    seen = next(run)
    caller.close()
    with pytest.raises(Cancelled):
        for _ in run:
            pass
    assert assert_no_run(client) > seen.version


def test_closing_the_client_ends_a_call_that_waits(caller: AnyClient, client: Client) -> None:
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            caller.step()
        except BaseException as error:  # noqa: BLE001 - the test checks it below
            ended.append(error)

    with client.train(ENDLESS_EPOCHS) as run:
        next(run)
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.2)
        assert waiting.is_alive()
        caller.close()
        waiting.join(5)
        assert not waiting.is_alive()
    assert [type(error) for error in ended] == [Cancelled]
    assert_no_run(client)


def test_closing_twice_is_harmless(caller: AnyClient) -> None:
    caller.close()
    caller.close()


def test_a_with_closes_the_client(address: str) -> None:
    with Client(address) as client:
        run = client.train(ENDLESS_EPOCHS)
        next(run)
    with pytest.raises(Cancelled):
        list(run)

    async def with_async_client() -> None:
        async with AsyncClient(address) as client:
            run = client.train(ENDLESS_EPOCHS)
            await anext(run)
        with pytest.raises(Cancelled):
            await run.wait()

    asyncio.run(asyncio.wait_for(with_async_client(), 10))
    with Client(address) as client:
        assert_no_run(client)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_invalid_address_is_named(
    kind: type[Client] | type[AsyncClient],
) -> None:
    for wrong in (None, 5, "", "here", "127.0.0.1:0"):
        with pytest.raises(InvalidInput, match=r"^address: got .*; must be HOST:PORT"):
            kind(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_closed_client_says_so(address: str, kind: type[Client] | type[AsyncClient]) -> None:
    image = np.zeros((28, 28), np.uint8)

    async def use_async() -> None:
        client = AsyncClient(address)
        await client.get_model()
        await client.close()
        with pytest.raises(Cancelled, match="the client is closed"):
            await client.predict(image)
        with pytest.raises(Cancelled, match="the client is closed"):
            client.train(epochs=1)
        with pytest.raises(Cancelled, match="the client is closed"):
            await anext(aiter(client.watch_run()))

    if kind is AsyncClient:
        asyncio.run(use_async())
        return
    client = Client(address)
    client.close()
    for call in (
        lambda: client.predict(image),
        lambda: client.train(epochs=1),
        lambda: next(client.watch_run()),
        lambda: next(client.predict_stream([image])),
    ):
        with pytest.raises(Cancelled, match="the client is closed"):
            call()


def test_closing_the_async_client_ends_its_streams(address: str) -> None:
    # The streams raise Cancelled in tasks that were not cancelled.

    async def follow(client: AsyncClient) -> None:
        run = client.train(epochs=100_000)
        await anext(run)
        async for _ in client.watch_run(follow=True):
            pass

    async def main() -> None:
        client = AsyncClient(address)
        following = asyncio.create_task(follow(client))
        await asyncio.sleep(0.3)
        await client.close()
        with pytest.raises(Cancelled, match="the client was closed"):
            await following

    asyncio.run(main())


def test_a_client_that_is_closed_during_a_retry_says_so() -> None:
    with LocalServer("--device", "cpu") as server:
        client = Client(server.address)
        client.get_model()
        server.kill()
        threading.Timer(0.3, client.close).start()
        with pytest.raises(Cancelled, match="the client is closed"):
            client.get_model()
