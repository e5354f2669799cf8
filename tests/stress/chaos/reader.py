"""A reader that records every answer, and its check against the book."""

from __future__ import annotations

import random
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1 import mnist37_pb2_grpc
from stress.chaos.book import IMAGES, Book, Position, Violation

CALL_SECONDS = 1.0
PAUSE_SECONDS = 0.004
OTHERS_SHARE = 0.3  # of the requests, for a version of some moments ago, or of the future


@dataclass
class Answer:
    """An answer, with the floor that its request had."""

    server: str
    floor: Position | None
    position: Position
    prediction: bytes
    asked: int | None  # the version that the request named; None: the newest


@dataclass
class LostHistory:
    """A refusal that says that the floor is not in the history of the server's start."""

    server: str
    floor: Position
    start: int


@dataclass
class Reader:
    """A session of one caller, which asks a server at random and keeps what it has seen.

    Args:
        addresses: of the servers.
        seed: of the choice.
    """

    addresses: list[str]
    seed: int
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._records: list[Answer | LostHistory] = []
        self._floor: Position | None = None
        self._must_end = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"reader-{self.seed}")
        self._thread.start()

    def stop(self) -> None:
        self._must_end.set()
        self._thread.join()

    def check(self, book: Book) -> int:
        """Check all answers since the last check, whose versions must be in the book by now.

        Returns:
            The number of answers.

        Raises:
            Violation: an answer breaks a promise.
        """
        records, self._records = self._records, []
        for record in records:
            if isinstance(record, Answer):
                check_answer(book, record)
            elif book.contains(record.start, record.floor):
                raise Violation(f"{record} says that the history is lost, which is there")
        return len(records)

    def _work(self) -> None:
        channels = [grpc.insecure_channel(address) for address in self.addresses]
        stubs = [mnist37_pb2_grpc.Mnist37ServiceStub(channel) for channel in channels]
        while not self._must_end.wait(PAUSE_SECONDS):
            number = self._random.randrange(len(stubs))
            self._ask(stubs[number], self.addresses[number])
        for channel in channels:
            channel.close()

    def _ask(self, stub: Any, address: str) -> None:
        request = pb.PredictRequest(pixels=IMAGES.tobytes())
        floor, asked = self._floor, None
        if floor is not None:
            request.start, request.min_version = floor
            if self._random.random() < OTHERS_SHARE:
                asked = request.version = max(0, floor.version + self._random.randint(-20, 10))
        try:
            answer = stub.Predict(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            self._take_error(error, address)
            return
        position = Position(answer.start, answer.version)
        prediction = struct.pack(f"<{len(IMAGES)}f", *answer.probabilities)
        self._records.append(Answer(address, floor, position, prediction, asked))
        self.counts["answers"] += 1
        if floor is None or asked is None:
            self._floor = position
        else:
            self._floor = Position(position.start, max(floor.version, position.version))

    def _take_error(self, error: Any, address: str) -> None:
        info = error_info(error)
        self.counts[info.reason or error.code().name] += 1
        if info.reason == "HISTORY_LOST" and self._floor is not None:
            start = int(info.metadata["start"])
            self._records.append(LostHistory(address, self._floor, start))
            self._floor = None
        elif error.code() not in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.NOT_FOUND,  # of another version than the newest
        ):
            self.counts["unexpected"] += 1
        time.sleep(5 * PAUSE_SECONDS)


def check_answer(book: Book, answer: Answer) -> None:
    """Raise Violation unless an answer is what was written, and not before its floor."""
    entry = book.entry(answer.position)
    if answer.prediction != entry.prediction:
        raise Violation(f"{answer}: the prediction is not the one of this version")
    if answer.floor is None:
        return
    if not book.contains(answer.position.start, answer.floor):
        raise Violation(f"{answer}: the floor is in another history")
    if answer.asked is not None:
        if answer.position.version != answer.asked:
            raise Violation(f"{answer}: this is another version than the one asked for")
    elif answer.position.version < answer.floor.version:
        raise Violation(f"{answer}: the version went back")


def error_info(error: Any) -> ErrorInfo:
    """Return the details of a refusal; empty ones if it has none."""
    info = ErrorInfo()
    try:
        status = rpc_status.from_call(error)
    except ValueError:
        return info
    for detail in status.details if status else ():
        detail.Unpack(info)
    return info
