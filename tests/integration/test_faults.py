"""Tests of a server on a machine that fails: clear errors, no lost data, and it continues."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mnist37_client import Client, Exhausted, Unavailable, validation_images
from mnist37_client.local_server import LocalServer
from support.twin import Twin

NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


def test_a_full_disk_fails_writes_alone_and_only_as_long_as_it_is_full(tmp_path: Path) -> None:
    # A limit on the size of the server's files simulates a full disk.
    images, _ = validation_images()
    twin = Twin()
    with LocalServer("--state", str(tmp_path), "--device", "cpu") as server:
        process = server.process.pid
        with Client(server.address) as client:
            client.step(request_id="first")
            twin.step()
            run = client.train(epochs=100_000, request_id="run")
            for _ in range(5):
                next(run)
            resource.prlimit(process, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
            with pytest.raises(Exhausted, match="could not be stored, nothing is applied") as said:
                run.wait()
            assert str(tmp_path) not in str(said.value)
            full = client.get_model()
            for _ in range(3):
                with pytest.raises(Exhausted):
                    client.step(request_id="second")
            model = client.get_model()
            assert (model.version, model.digest) == (full.version, full.digest)
            assert client.predict(images).version == full.version
            assert client.get_loss("valid").count == 2038

            resource.prlimit(process, resource.RLIMIT_FSIZE, NO_LIMIT)
            epochs = (full.version - 1) // 49
            twin.train(epochs)
            assert full.digest == twin.digest, "the committed epochs must be complete"
            assert client.step(request_id="second").version == full.version + 1
            twin.step()
            assert client.get_model().digest == twin.digest
    with LocalServer("--state", str(tmp_path)) as server, Client(server.address) as client:
        assert client.get_model().digest == twin.digest
        assert client.step(request_id="first").version == 1


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that cannot be written to.

    For root that is a read-only mount, because root can write to every other folder.
    """
    folder = tmp_path / "read-only"
    folder.mkdir()
    if os.geteuid():
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("root, but not allowed to mount a read-only folder")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_folder_is_refused(read_only: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"--state: cannot write to .*; name a folder that can be"
    ):
        LocalServer("--state", str(read_only))


@pytest.fixture
def read_only_database(tmp_path: Path) -> Iterator[Path]:
    """Return a state folder whose database cannot be written to.

    For root that is a read-only mount, because root can write to every other file.
    """
    with LocalServer("--state", str(tmp_path)):
        pass
    database = tmp_path / "mnist37.sqlite3"
    if os.geteuid():
        database.chmod(0o400)
        yield tmp_path
        return
    for mount in (["--bind", str(database)], ["-o", "remount,ro,bind"]):
        mounting = ["mount", *mount, str(database)]
        if subprocess.run(mounting, capture_output=True, check=False).returncode:
            pytest.skip("root, but not allowed to mount a read-only file")
    yield tmp_path
    # Lazy, because a server that has started by mistake would still have the file open.
    subprocess.run(["umount", "--lazy", str(database)], check=True)


def test_a_read_only_database_is_refused_at_the_start(
    read_only_database: Path,
) -> None:
    with pytest.raises(Unavailable, match=r"--state: cannot write to .*sqlite3; make it writable"):
        LocalServer("--state", str(read_only_database))


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_database_with_two_names_is_refused_under_both(
    link: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir(mode=0o700)
    with LocalServer("--device", "cpu", "--state", str(first)):
        link(first / "mnist37.sqlite3", second / "mnist37.sqlite3")
        with pytest.raises(Unavailable, match="is a link, or there is a hard link to it"):
            LocalServer("--device", "cpu", "--state", str(second))
    if link is os.link:
        with pytest.raises(Unavailable, match="put a copy in its place, or name another folder"):
            LocalServer("--device", "cpu", "--state", str(first))
        (second / "mnist37.sqlite3").unlink()
    LocalServer("--device", "cpu", "--state", str(first)).stop()


def test_a_run_can_be_resumed_after_its_clients_connection_ended(server: LocalServer) -> None:
    # The server treats it like a cancelled run: it stops the run and keeps the committed epochs.
    first = Client(server.address)
    run = first.train(epochs=200, request_id="cut")
    for _ in range(20):
        next(run)
    first.close()
    with Client(server.address) as client:
        assert client.train(epochs=200, request_id="cut").wait().epoch == 200
        twin = Twin()
        twin.train(200)
        assert client.get_model().digest == twin.digest


class BrokenPool(LocalServer):
    """A server whose pool for short calls raises in grpcio's serving thread."""

    command = (
        sys.executable,
        "-c",
        "from mnist37_server import command_line\n"
        "from mnist37_server.rpc.threads.elastic_pool import ElasticThreadPool\n"
        "def submit(*_): raise RuntimeError('no thread')\n"
        "ElasticThreadPool.submit = submit\n"
        "command_line.start()\n",
    )


def test_a_server_whose_serving_thread_has_ended_ends(tmp_path: Path) -> None:
    with BrokenPool("--device", "cpu", "--state", str(tmp_path)) as server:
        with Client(server.address, retry_for=0, timeout=20) as client:
            client.step()
            with pytest.raises(Unavailable):
                client.predict(validation_images()[0][0])
        assert server.process.wait(20) == 1
        _, logged = server.stop()
    assert "gRPC's serving thread has ended" in logged
    assert "no thread" in logged
    with LocalServer("--device", "cpu", "--state", str(tmp_path)) as server:
        assert Client(server.address).get_model().version == 1
