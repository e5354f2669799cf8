"""Tests of what an operator sees of a real server: its metrics over HTTP, and its log."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from mnist37_client import Client, NotFound, Unavailable, validation_images
from mnist37_client.local_server import LocalServer
from mnist37_protos.v1 import mnist37_pb2 as pb
from mnist37_protos.v1.mnist37_pb2_grpc import Mnist37ServiceStub
from support.scraping import Scrape, wait_until

METRICS = "--metrics-address", "127.0.0.1:0"
DEBUG = "--log-level", "debug"
UNPRINTABLE = "a\nb\r\t\x1b[31m\x00\x7f\u2028\u202e =\"'"
BATCH = pb.Batch(pixels=b"payload!" * 98, labels=b"\1")
TOKEN = "Bearer s3cr3t"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[LocalServer, str]]:
    """Return a server that logs at level debug as JSON, and the URL of its metrics."""
    options = ("--device", "cpu", "--state", str(tmp_path), "--log-format", "json")
    with LocalServer(*METRICS, *DEBUG, *options) as server:
        assert server.process.stdout is not None
        told = server.process.stdout.readline()
        assert re.fullmatch(r"metrics on http://127\.0\.0\.1:[1-9]\d*/metrics\n", told)
        yield server, told.split()[-1]


def test_the_metrics_count_what_was_done(watched: tuple[LocalServer, str]) -> None:
    server, url = watched
    images, _ = validation_images()
    new = Scrape(url)
    assert new.value("mnist37_model_version") == 0
    assert new.value("mnist37_loss", split="train") is None, "there is no loss yet"
    assert new.total("grpc_server_started_total") == 0
    assert new.value("process_resident_memory_bytes")
    with Client(server.address) as client:
        progress = client.train(epochs=3, batch_size=100).wait()
        trained = Scrape(url)
        assert trained.value("mnist37_model_version") == progress.version == 3 * 124
        assert trained.value("mnist37_loss", split="train") == progress.train_loss
        assert trained.value("mnist37_loss", split="valid") == progress.valid_loss
        assert trained.value("mnist37_accuracy") == progress.valid_accuracy
        assert trained.value("mnist37_steps_total") == 3 * 124
        assert trained.value("mnist37_images_trained_total") == 3 * 12_396
        assert trained.value("mnist37_runs_total", outcome="finished") == 1
        assert trained.codes("Train") == {"OK": 1}

        stepped = client.step(request_id="one")
        client.step(images[:10], [1] * 10)
        client.step(request_id="one")  # a repeated request, which is not done again
        client.predict(images[:7])
        list(client.predict_stream([images[:2], images[:3]]))
        client.initialize()
        with pytest.raises(NotFound):
            client.restore(10**9)
        stub = Mnist37ServiceStub(grpc.insecure_channel(server.address))
        with pytest.raises(grpc.RpcError, match="INVALID_ARGUMENT"):
            stub.Step(pb.StepRequest(learning_rate=-1))
        now = Scrape(url)
        assert now.value("mnist37_steps_total") == 3 * 124 + 2
        assert now.value("mnist37_images_trained_total") == 3 * 12_396 + 256 + 10
        assert now.value("mnist37_images_predicted_total") == 12
        assert now.value("mnist37_model_version") == stepped.version + 2
        assert now.value("mnist37_loss", split="valid") == progress.valid_loss
        assert now.codes("Step") == {"OK": 3, "InvalidArgument": 1}
        assert now.codes("Restore") == {"NotFound": 1}
        assert now.codes("Predict") == now.codes("PredictStream") == {"OK": 1}
        commits = now.value("mnist37_commit_seconds_count")
        assert commits is not None
        assert 4 <= commits <= 6, "three writes, and up to one an epoch"
        assert now.value("mnist37_commits_failed_total") == 0
        assert now.value("mnist37_state_bytes") >= 4096  # type: ignore[operator]

        run = client.train(epochs=1_000_000, request_id="long")
        next(run)
        waiting = stub.Step.future(pb.StepRequest(), timeout=30)
        assert wait_until(lambda: Scrape(url).value("mnist37_queue_depth") == 1)
        assert Scrape(url).value("mnist37_runs_in_progress") == 1
        run.cancel()
        waiting.result()
        after = Scrape(url)
        assert after.value("mnist37_queue_depth") == after.value("mnist37_runs_in_progress") == 0
        assert after.value("mnist37_runs_total", outcome="interrupted") == 1
        assert wait_until(lambda: Scrape(url).codes("Train") == {"OK": 1, "Canceled": 1})


def test_the_log_has_one_line_an_event_and_nothing_secret(
    watched: tuple[LocalServer, str], tmp_path: Path
) -> None:
    server, _ = watched
    with Client(server.address) as client:
        client.train(epochs=2, request_id="run").wait()
        run = client.train(epochs=1_000_000)
        next(run)
        run.cancel()
        client.initialize(request_id=UNPRINTABLE)
        model = client.get_model()
        client.import_model(model.weights, model.bias)
        client.restore(0)
        with grpc.insecure_channel(server.address) as channel:
            stub = Mnist37ServiceStub(channel)
            token = [("authorization", TOKEN)]
            stub.Step(pb.StepRequest(batch=BATCH, request_id="stepped"), metadata=token)
            stub.Predict(pb.PredictRequest(pixels=BATCH.pixels), metadata=token)
            for wrong in (BATCH.pixels[1:], BATCH.pixels * 2):
                batch = pb.Batch(pixels=wrong, labels=b"\1")
                with pytest.raises(grpc.RpcError):
                    stub.Step(pb.StepRequest(batch=batch, request_id="bad"), metadata=token)
            step: Any = channel.unary_unary("/mnist37.v1.Mnist37Service/Step")
            with pytest.raises(grpc.RpcError):
                step(b"\xff payload!", timeout=5)
        versions = client.versions()
    status, logged = server.stop()
    assert status == 0
    assert "payload" not in logged
    assert "s3cr3t" not in logged
    lines = [json.loads(line) for line in logged.splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", line.pop("time"))
        line.pop("logger")
    began, finished, *others = [line for line in lines if line.get("method") == "Train"]
    named = {"level": "INFO", "method": "Train", "request_id": "run", "run": 1}
    assert began == {"message": "run started", **named}
    assert finished == {"message": "run finished", **named, "version": 98}
    interrupted = next(line for line in others if line["message"] == "run interrupted")
    assert interrupted["run"] == 2
    assert interrupted["version"] == versions[4].version
    assert interrupted["reason"] == "nobody waited for it any more"

    messages = [line["message"] for line in lines]
    started = {"address": server.address, "device": "cpu", "state": str(tmp_path), "version": 0}
    assert lines[0] == {"level": "INFO", "message": "started", **started}
    assert messages[-2:] == ["stopping", "stopped"]
    committed = [line for line in lines if line["message"] == "committed"]
    assert [line["method"] for line in committed] == ["Initialize", "Import", "Restore", "Step"]
    assert [line["level"] for line in committed] == ["INFO"] * 3 + ["DEBUG"]
    assert [line["version"] for line in committed] == [v.version for v in versions[3::-1]]
    assert committed[0]["request_id"] == UNPRINTABLE
    refused = [line for line in lines if line.get("request_id") == "bad"]
    told = {"message": "refused", "method": "Step", "code": "INVALID_ARGUMENT"}
    told["reason"] = "INVALID_FIELD"
    assert refused == [{"level": "DEBUG", "request_id": "bad", **told}] * 2
    undecodable = {**told, "reason": "MALFORMED_MESSAGE"}
    assert {"level": "DEBUG", **undecodable} in lines


def test_text_keeps_each_event_on_its_line() -> None:
    with LocalServer("--device", "cpu") as server:
        with Client(server.address) as client:
            client.initialize(request_id=UNPRINTABLE)
            client.initialize(request_id="plain")
            client.initialize(request_id="x\n2026-01-31 12:00:00,123 INFO forged")
            client.step(request_id="debug alone tells of it")
        server.process.send_signal(signal.SIGINT)  # and SIGTERM at once, by stop()
        status, logged = server.stop()
    assert status == 0
    lines = logged.split("\n")
    assert lines.pop() == ""
    assert logged.replace("\n", "").isprintable()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO "
    expected = [
        rf"started address={server.address} device=cpu state=memory version=0",
        r'committed method=Initialize request_id="a\\nb.*" version=1',
        r"committed method=Initialize request_id=plain version=2",
        r'committed method=Initialize request_id="x\\n2026.* INFO forged" version=3',
        r"stopping signal=SIG(INT|TERM)",
        "stopped version=4",
    ]
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(stamp + pattern, line), line


@pytest.mark.parametrize("wrong", ["9100", ":9100", "127.0.0.1:99999", "127.0.0.1:x"])
def test_an_invalid_metrics_address_is_refused(wrong: str) -> None:
    with pytest.raises(Unavailable, match=r"--metrics-address: got .*; must be HOST:PORT"):
        LocalServer("--metrics-address", wrong)
