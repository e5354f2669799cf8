"""A disk that fails or hangs under a real server: what callers are told stays true."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from mnist37_client import Client, DeadlineExceeded, Exhausted, Unavailable, validation_images
from mnist37_client import health as client_health
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1.mnist37_pb2_grpc import Mnist37ServiceStub
from mnist37_server.storage.store import Store
from support import mixed_writes
from support.disk_faults import FaultyDisk
from support.scraping import Scrape, wait_until

IMAGES, _ = validation_images()
TIMEOUT = 20
QUICKLY = 1.0  # seconds: ten times what a call takes on a busy machine
WRITES = [sys.executable, str(Path(mixed_writes.__file__))]


@pytest.fixture
def disk(tmp_path: Path) -> FaultyDisk:
    folder = tmp_path / "disk"
    folder.mkdir()
    return FaultyDisk(folder)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def newest(folder: Path) -> int:
    """Return the version that a new server begins with."""
    return newest_and_tags(folder)[0]


def newest_and_tags(folder: Path) -> tuple[int, dict[str, str]]:
    """Return the version and the tags that a new server begins with."""
    store = Store(folder)
    snapshot, tags = store.latest(), store.tags()
    store.close()
    named = {tag.name: str(tag.version) for tag in tags if "@" not in tag.name}
    return -1 if snapshot is None else snapshot.version, named


@contextmanager
def connect(folder: Path) -> Iterator[sqlite3.Connection]:
    """Open the database as another program does."""
    connection = sqlite3.connect(
        folder / "mnist37.sqlite3", isolation_level=None, check_same_thread=False
    )
    try:
        yield connection
    finally:
        connection.close()


def seconds_of(call: Callable[[], object]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


# --- A sync fails


def test_each_sync_may_fail_and_callers_are_told_the_truth(tmp_path: Path) -> None:
    """Fail the Nth sync of a script with all kinds of writes, for every N, and kill the process."""

    def run(number: int) -> tuple[list[str], tuple[int, dict[str, str]]]:
        folder, disk_folder = tmp_path / f"state-{number}", tmp_path / f"disk-{number}"
        disk_folder.mkdir()
        disk = FaultyDisk(disk_folder)
        disk.order(f"fail-sync-{number}")
        output = disk.run(*WRITES, str(folder)).stdout.split()
        return output, newest_and_tags(folder) if output else (0, {})

    failures = []
    with ThreadPoolExecutor(2) as pool:
        for output, (version, tags) in pool.map(run, range(1, 15)):
            if not output:
                continue  # the database could not be created, so no caller was told anything
            failures += [number for number, word in enumerate(output) if word == "STORAGE_FULL"]
            versions = [int(word) for word in output if word.isdigit()]
            assert version == versions[-1], output
            told = dict(word.split("=") for word in output if "=" in word)
            assert tags == {name: tag for name, tag in told.items() if tag}, output
    # Each write but the repeated Step, the third, has a sync of its own.
    assert {0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11} <= set(failures)


@pytest.mark.parametrize("cause", ["an error", "no space"])
def test_a_commit_whose_sync_failed_does_not_come_back(
    disk: FaultyDisk, state: Path, cause: str
) -> None:
    if cause == "no space":
        disk.order("no-space")
    with disk.serve("--state", str(state)) as server, Client(server.address) as client:
        for _ in range(3):
            client.step()
        disk.order("fail-next")
        with pytest.raises(Exhausted, match="nothing is applied") as refused:
            client.step(request_id="lost")
        assert refused.value.reason == "STORAGE_FULL"
        assert client.get_model().version == 3
        server.kill()
    assert newest(state) == 3
    with LocalServer("--device", "cpu", "--state", str(state)) as server:
        assert Client(server.address).step(request_id="lost").version == 4


def test_where_no_sync_holds_the_server_ends_before_it_says_anything(
    disk: FaultyDisk, state: Path
) -> None:
    with disk.serve("--state", str(state)) as server:
        with Client(server.address, retry_for=0) as client:
            client.step()
            disk.order("fail-syncs")
            with pytest.raises(Unavailable):
                client.step(request_id="unknown")
        status, logged = server.stop()
    assert status == 1
    assert "could not be taken back: the server ends" in logged
    with LocalServer("--device", "cpu", "--state", str(state)) as server:
        assert Client(server.address).step(request_id="unknown").version == 2


def test_a_disk_without_room_ends_no_server(disk: FaultyDisk, state: Path) -> None:
    with disk.serve("--state", str(state)) as server, Client(server.address) as client:
        client.step()
        disk.order("no-space")
        with disk.obeying("fail-writes"):
            for _ in range(3):
                with pytest.raises(Exhausted, match="nothing is applied"):
                    client.step()
            assert client.predict(IMAGES[0]).version == 1
        assert client.step().version == 2
        server.kill()
    assert newest(state) == 2


# --- The disk, the log's reader, another process hang


def test_predictions_go_on_while_reads_of_the_disk_hang(disk: FaultyDisk, state: Path) -> None:
    """Ask for a known id, old versions and lists; cancel Steps: no lock is held over a read."""
    with disk.serve("--state", str(state)) as server, grpc.insecure_channel(server.address) as own:
        stub = Mnist37ServiceStub(own)
        with Client(server.address, timeout=TIMEOUT) as client:
            for number in range(300):
                client.step(request_id=f"known {number}")
            with sqlite3.connect(state / "mnist37.sqlite3") as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with disk.obeying("hang-reads"):
                old_version = pb.PredictRequest(pixels=bytes(784), version=1)
                waiting = [
                    *(stub.ListVersions.future(pb.ListVersionsRequest()) for _ in range(8)),
                    *(stub.Predict.future(old_version) for _ in range(8)),
                    *(stub.Step.future(pb.StepRequest(request_id=f"known {n}")) for n in range(8)),
                ]
                late = [stub.Step.future(pb.StepRequest(), timeout=0.2) for _ in range(8)]
                time.sleep(0.5)
                for call in late:
                    call.cancel()
                assert seconds_of(lambda: client.predict(IMAGES[0])) < QUICKLY
                assert seconds_of(lambda: client_health.check(server.address)) < QUICKLY
            for call in waiting:
                call.result(TIMEOUT)


def test_predictions_go_on_while_a_commit_hangs(disk: FaultyDisk, state: Path) -> None:
    with disk.serve("--state", str(state)) as server, Client(server.address) as client:
        client.step()
        with ThreadPoolExecutor(4) as pool, disk.obeying("hang-syncs"):
            steps = [pool.submit(client.step) for _ in range(4)]
            impatient = Client(server.address, timeout=0.2, retry_for=0)
            with pytest.raises(DeadlineExceeded):
                impatient.step()
            assert seconds_of(lambda: client.predict(IMAGES[0])) < QUICKLY
            assert client.get_model().version == 1
        assert max(step.result(TIMEOUT).version for step in steps) in {5, 6}


class Unread(LocalServer):
    """A server whose log goes to a pipe that is full and that is not read."""

    command = ("sh", "-c", 'exec "$0" "$@" 2>"$LOG_PIPE"', *LocalServer.command)


def test_calls_go_on_while_the_reader_of_the_log_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    monkeypatch.setenv("LOG_PIPE", str(pipe))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(writer, bytes(4096))
    except BlockingIOError:
        pass
    try:
        with Unread("--device", "cpu") as server, Client(server.address, timeout=TIMEOUT) as client:
            for _ in range(30):
                client.initialize()
            assert client.predict(IMAGES[0]).version == 30
            status, _ = server.stop()
        assert status == 0
    finally:
        os.close(reader)
        os.close(writer)


@pytest.fixture
def server(state: Path) -> Iterator[LocalServer]:
    metrics = ("--metrics-address", "127.0.0.1:0")
    with LocalServer("--device", "cpu", "--state", str(state), *metrics) as server:
        yield server


def test_a_lock_of_another_process_is_called_by_its_name(server: LocalServer, state: Path) -> None:
    impatient = Client(server.address, retry_for=0, timeout=TIMEOUT)
    impatient.step()
    with connect(state) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="another process locks the database") as refused:
            impatient.step()
        assert (refused.value.reason, refused.value.retry_after) == ("STORAGE_BUSY", 1.0)
        assert impatient.predict(IMAGES[0]).version == 1
        patient = Client(server.address, timeout=TIMEOUT)
        patient.get_model()
        threading.Timer(1, other.execute, ["ROLLBACK"]).start()
        assert patient.step().version == 2


def test_a_log_that_a_reader_made_grow_shrinks_again(server: LocalServer, state: Path) -> None:
    assert server.process.stdout is not None
    url = server.process.stdout.readline().split()[-1]

    def log_bytes() -> float:
        return Scrape(url).value("mnist37_state_log_bytes") or 0

    with (
        Client(server.address) as client,
        connect(state) as reader,
        ThreadPoolExecutor(16) as callers,
    ):
        client.train(10).wait()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM versions").fetchall()
        while log_bytes() < 17 * 2**20:
            list(callers.map(lambda _: client.step(), range(200)))
        reader.execute("COMMIT")
        assert wait_until(lambda: bool(client.step()) and log_bytes() <= 16 * 2**20, TIMEOUT)


# --- The files are deleted


@pytest.mark.parametrize("name", ["lock", "mnist37.sqlite3", "mnist37.sqlite3-wal", "the folder"])
def test_files_that_are_deleted_end_the_writes(server: LocalServer, state: Path, name: str) -> None:
    assert server.process.stdout is not None
    url = server.process.stdout.readline().split()[-1]
    with Client(server.address, retry_for=0) as client:
        client.step()
        if name == "the folder":
            shutil.rmtree(state)
        else:
            (state / name).unlink()
        for _ in range(2):
            with pytest.raises(Unavailable, match="was deleted or replaced") as refused:
                client.step(request_id="not stored")
            assert refused.value.reason == "STATE_LOST"
        assert client.predict(IMAGES[0]).version == 1
        with pytest.raises(Unavailable, match="not serving"):
            client_health.check(server.address)
        assert Scrape(url).value("mnist37_model_version") == 1
    status, logged = server.stop()
    assert status == 0
    assert logged.count("was deleted or replaced: no more writes are taken") == 1


def test_a_write_to_a_file_that_lost_its_name_is_never_acknowledged(
    disk: FaultyDisk, state: Path
) -> None:
    """Delete the database while a commit syncs: the commit succeeds, and is lost all the same."""
    metrics = ("--metrics-address", "127.0.0.1:0")
    with disk.serve("--state", str(state), *metrics) as server:
        assert server.process.stdout is not None
        url = server.process.stdout.readline().split()[-1]
        client = Client(server.address, retry_for=0, timeout=TIMEOUT)
        client.step()
        with ThreadPoolExecutor(1) as pool, disk.obeying("hang-syncs"):
            step = pool.submit(client.step, request_id="lost")
            assert wait_until(step.running, TIMEOUT)
            time.sleep(0.5)
            (state / "mnist37.sqlite3").unlink()
        with pytest.raises(Unavailable, match="was deleted or replaced"):
            step.result(TIMEOUT)
        with pytest.raises(Unavailable, match="was deleted or replaced"):
            client.step(request_id="lost")
        with suppress(Unavailable):  # what SQLite still has can be read; the rest is refused
            client.versions()
        assert client.get_model().version == 1
        assert Scrape(url).value("mnist37_model_version") == 1


def test_a_new_state_that_cannot_be_stored_is_one_line(disk: FaultyDisk, state: Path) -> None:
    disk.order("fail-sync-1")
    with pytest.raises(
        Unavailable, match=r"--state: .*nothing is applied: disk I/O error$"
    ) as told:
        disk.serve("--state", str(state))
    assert "Traceback" not in str(told.value)
