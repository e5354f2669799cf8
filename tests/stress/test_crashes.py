"""Tests of a server that is killed: no acknowledged write is lost or done twice."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest
from mnist37_client import AsyncClient, Client, Unavailable, validation_images
from stress.crashes import Script, random_kills
from stress.victim import MOMENTS, Victim


def test_ten_kills_at_random_moments(tmp_path: Path) -> None:
    assert random_kills(10, seed=time.time_ns(), folder=tmp_path) > 10


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_a_commit(tmp_path: Path, moment: str) -> None:
    # The server is killed at its first commit, its second, and so on: commits of Initializes,
    # Steps and epochs of runs.
    victim, script = Victim(tmp_path), Script(seed=1)
    with victim.client() as client:
        for commit in range(1, 6):
            victim.kill()
            victim.start((moment, commit))

            def restart() -> None:
                victim.process.join()
                victim.start()

            supervisor = threading.Thread(target=restart)
            supervisor.start()
            writes = 0
            while supervisor.is_alive():
                script.write(client)
                writes += 1
                assert writes < 60, "the failpoint was never reached"
            supervisor.join()
        script.check(client)
    victim.kill()


def test_both_clients_continue_a_stream_after_a_restart(tmp_path: Path) -> None:
    # Each batch is answered once, in order, also the batches that were under way.
    victim = Victim(tmp_path)
    images = validation_images()[0][:60]

    def restart_at(number: int) -> None:
        if number in (3, 30):
            victim.kill()
            victim.start()

    async def stream_async() -> list[float]:
        found: list[float] = []
        async with AsyncClient(victim.config.address) as client:
            await client.get_model()
            async for answer in client.predict_stream(images):
                restart_at(len(found))
                found.append(float(answer.probabilities[0]))
        return found

    with victim.client() as client:
        client.train(1).wait()
        expected = list(client.predict(images).probabilities)
        found: list[float] = []
        for answer in client.predict_stream(images):
            restart_at(len(found))
            found.append(float(answer.probabilities[0]))
        assert found == expected
        assert asyncio.run(stream_async()) == expected
    victim.kill()


def test_both_clients_continue_a_run_after_a_restart(tmp_path: Path) -> None:
    # No epoch may come twice, and the last one must come.
    victim = Victim(tmp_path)

    def restart() -> None:
        victim.kill()
        time.sleep(0.5)
        victim.start()

    def follow(client: Client) -> list[int]:
        run, seen = client.train(epochs=300), []
        for progress in run:
            seen.append(progress.epoch)
            if len(seen) == 20:
                restart()
        return seen

    async def follow_async() -> list[int]:
        seen = []
        async with AsyncClient(victim.config.address) as client:
            await client.get_model()
            async for progress in client.train(epochs=300):
                seen.append(progress.epoch)
                if len(seen) == 20:
                    restart()
        return seen

    with victim.client() as client:
        for seen in (follow(client), asyncio.run(follow_async())):
            assert seen == sorted(set(seen))
            assert seen[-1] == 300
            assert len(seen) > 200
        assert client.get_model().version == 600 * 49
    victim.kill()


def test_a_client_gives_up_after_retry_for(tmp_path: Path) -> None:
    victim = Victim(tmp_path)
    victim.client().close()
    with Client(victim.config.address, retry_for=1.0) as client:
        client.step()
        victim.kill()
        began = time.monotonic()
        with pytest.raises(Unavailable):
            client.step()
        assert 0.3 < time.monotonic() - began < 2.0
