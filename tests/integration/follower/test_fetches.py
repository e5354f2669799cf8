"""Tests of reads for which a follower asks its owner, whose disk hangs."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_server.domain.position import Position
from mnist37_server.errors import Reason, Unavailable
from mnist37_server.follower.upstream import Upstream
from support.disk_faults import FaultyDisk
from support.following import FailedCall, Server
from support.scraping import wait_until

PLACES, SECONDS = 64, 5.0  # of reads that wait for the owner
QUICKLY = 1.0  # seconds: ten times what a call takes on a busy machine
TIMEOUT = 20


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> FaultyDisk:
    return FaultyDisk(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def owner(disk: FaultyDisk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return an owner with many versions, which are read from the disk."""

    class Owner(Server):
        command = disk.server_command

    state = tmp_path_factory.mktemp("state")
    with Owner("--device", "cpu", "--state", str(state)) as server:
        for _ in range(PLACES + 100):
            server.step()
        with sqlite3.connect(state / "mnist37.sqlite3") as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield server


def test_a_bounded_number_of_reads_waits_for_the_owner_and_each_for_5_seconds(
    disk: FaultyDisk, owner: Server
) -> None:
    with Server("--follow", owner.address) as follower:
        newest = follower.wait_until_serving().model().version
        ask = follower.channel.unary_unary(
            "/mnist37.v1.Mnist37Service/GetModel",
            pb.GetModelRequest.SerializeToString,
            pb.GetModelResponse.FromString,
        )
        surplus = 16
        with disk.obeying("hang-reads"):
            began = time.monotonic()
            versions = range(PLACES + surplus)
            calls = [ask.future(pb.GetModelRequest(version=n), timeout=TIMEOUT) for n in versions]
            # No more than the surplus is refused, and that at once.
            assert wait_until(lambda: sum(call.done() for call in calls) == surplus, QUICKLY)
            assert [follower.model().version for _ in range(5)] == [newest] * 5
            assert time.monotonic() - began < SECONDS
            assert sum(call.done() for call in calls) == surplus
            refused = [failure(call) for call in calls if call.done()]
            waited = [failure(call) for call in calls]  # each ends
            assert SECONDS - 1 < time.monotonic() - began < SECONDS + 2
        assert all(f"{PLACES} reads wait for the owner" in each.text for each in refused)
        texts = [each.text for each in waited if each.text not in {one.text for one in refused}]
        assert len(texts) == PLACES
        assert all("no answer came within 5 seconds" in text for text in texts), texts
        assert {(each.code, each.reason) for each in waited} == {
            (grpc.StatusCode.UNAVAILABLE, "OWNER_UNREACHABLE")
        }
        # The places are free again, and stay so.
        assert [follower.model(version=n).version for n in versions] == [*versions]


def failure(call: grpc.Future[pb.GetModelResponse]) -> FailedCall:
    error = call.exception(TIMEOUT)
    assert isinstance(error, grpc.RpcError)
    return FailedCall(error)


def test_a_read_ends_with_the_connection_that_it_waits_on(disk: FaultyDisk, owner: Server) -> None:
    held = owner.model()
    upstream = Upstream(owner.address, None, None, "", "")
    upstream.connect()
    with ThreadPoolExecutor(1) as pool, disk.obeying("hang-reads"):
        position = Position(held.start, held.version)
        fetch = pool.submit(upstream.fetch, PLACES + 50, position)
        began = time.monotonic()
        while not fetch.done():
            time.sleep(0.1)
            upstream.connect()
        assert time.monotonic() - began < SECONDS - 1
    with pytest.raises(Unavailable, match="the connection is being opened anew") as refused:
        fetch.result()
    assert refused.value.reason is Reason.OWNER_UNREACHABLE
    upstream.close()
