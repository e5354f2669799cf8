"""Readers of Follow, and how late each version reaches them."""

from __future__ import annotations

import math
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
from mnist37_client import Client
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.harness import Measure

EPOCHS = 1_000_000  # far more than a measurement lasts
SETTLE_SECONDS = 0.5


class Readers:
    """Readers of Follow in this process, which note when each version came.

    Args:
        addresses: HOST:PORT of the server that each of them follows.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._channels = [
            grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
            for address in addresses
        ]
        self._calls: list[Any] = [
            mnist37_pb2_grpc.Mnist37ServiceStub(channel).Follow(pb.FollowRequest())
            for channel in self._channels
        ]
        # Seconds since 1970, and the version.
        self.arrivals: list[list[tuple[float, int]]] = [[] for _ in self._calls]
        self._threads = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in zip(self._calls, self.arrivals, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _read(call: Iterator[pb.FollowResponse], arrivals: list[tuple[float, int]]) -> None:
        try:
            for message in call:
                arrivals.append((time.time(), message.position.version))
        except grpc.RpcError:
            pass  # the measurement has ended

    def close(self) -> None:
        """End the calls."""
        for call in self._calls:
            call.cancel()
        for thread in self._threads:
            thread.join()
        for channel in self._channels:
            channel.close()


def idle_readers(addresses: Sequence[str]) -> Measure:
    """Start readers of Follow; the measurement only counts them."""
    readers = Readers(addresses)
    return lambda seconds: float(len(readers.arrivals))


def measure_delay(address: str, followed: Sequence[str], share: float) -> Measure:
    """Return a measurement of the seconds from a commit until a reader has its version.

    A commit's time is that at which its transaction began, so the delay includes the disk's.

    Args:
        address: HOST:PORT of the owner.
        followed: HOST:PORT of the server that each reader in this process follows.
        share: which of the delays counts: 0.5 for the median, 0.99 for the 99th percentile.
    """

    def measure(seconds: float) -> float:
        readers = Readers(followed)
        with Client(address) as client:
            train(client, seconds)
            commits = [
                (version.committed_at.timestamp(), version.version)
                for version in reversed(client.versions())
            ]
        readers.close()
        delays = sorted(
            delay for arrivals in readers.arrivals for delay in delays_of(commits, arrivals)
        )
        return delays[min(len(delays) - 1, math.floor(share * len(delays)))]

    return measure


def measure_commit(address: str, metrics: str, followed: Sequence[str]) -> Measure:
    """Return a measurement of the mean seconds of a commit during a run that is followed.

    Args:
        address: HOST:PORT of the owner.
        metrics: HOST:PORT of its metrics.
        followed: HOST:PORT of the server that each reader in this process follows.
    """

    def measure(seconds: float) -> float:
        readers = Readers(followed)
        with Client(address) as client:
            before = commits_of(metrics)
            train(client, seconds)
            after = commits_of(metrics)
        readers.close()
        return (after[0] - before[0]) / (after[1] - before[1])

    return measure


def commits_of(metrics: str) -> tuple[float, float]:
    """Return the seconds of all commits of an owner, and their number."""
    with urllib.request.urlopen(f"http://{metrics}/metrics") as reply:
        text = reply.read().decode()
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name == "mnist37_commit_seconds"
    }
    return values["mnist37_commit_seconds_sum"], values["mnist37_commit_seconds_count"]


def train(client: Client, seconds: float) -> None:
    """Let a run go on for at least a second, and stop it."""
    with client.train(EPOCHS) as run:
        end_time = time.perf_counter() + max(seconds, 1.0)
        for _ in run:
            if time.perf_counter() > end_time:
                break
    time.sleep(SETTLE_SECONDS)


def delays_of(
    commits: list[tuple[float, int]], arrivals: list[tuple[float, int]]
) -> Iterator[float]:
    """Yield for each commit after how many seconds its newest version, or a later one, arrived.

    Args:
        commits: the time and the version of each, oldest first; versions that were committed
            together have one time.
        arrivals: the time and the version of each, oldest first.
    """
    newest = dict(commits)  # by the time of the commit
    later = iter(arrivals)
    arrival = next(later)
    for committed_at, version in newest.items():
        if committed_at < arrivals[0][0]:
            continue  # before this reader came
        while arrival[1] < version:
            arrival = next(later)
        yield arrival[0] - committed_at
