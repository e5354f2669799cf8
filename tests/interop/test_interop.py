"""Unmodified clients of other projects against this server: `make interop`.

MNIST37_INTEROP names the environment where they are installed (requirements.txt).
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mnist37_client import Client, validation_images
from mnist37_client.tensorboard import TensorBoardLog
from mnist37_protos.inference import open_inference_pb2
from numpy.typing import NDArray
from support.local_web import LocalWeb

pytestmark = pytest.mark.skipif(
    "MNIST37_INTEROP" not in os.environ, reason="make interop installs the clients"
)

HERE = Path(__file__).parent


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return validation_images()[0][::40].reshape(-1, 784)


def run(program: str, *arguments: str) -> str:
    """Run a program of their environment, without this project's packages; return its output."""
    process = subprocess.run(
        [Path(os.environ["MNIST37_INTEROP"]) / "bin" / program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def web(address: str) -> Iterator[LocalWeb]:
    with LocalWeb(address) as web:
        yield web


@pytest.mark.parametrize(
    "script",
    ["with_tritonclient.py", "with_kserve.py", "with_tritonclient_http.py", "with_kserve_http.py"],
)
def test_a_client_of_the_protocol(
    client: Client,
    address: str,
    web: LocalWeb,
    images: NDArray[np.uint8],
    tmp_path: Path,
    script: str,
) -> None:
    client.train(epochs=2).wait()
    expected = client.predict(images)
    files = [str(tmp_path / name) for name in ("images.npy", "expected.npy")]
    np.save(files[0], images)
    np.save(files[1], expected.probabilities)
    protocol = tmp_path / "protocol"
    protocol.write_bytes(open_inference_pb2.DESCRIPTOR.serialized_pb)
    called = web.address if script.endswith("_http.py") else address
    arguments = [called, *files, str(expected.version), str(protocol)]
    output = run("python", str(HERE / script), *arguments)
    assert f"{len(images)} images from version {expected.version}" in output


def test_grpcurl_needs_no_proto(client: Client, address: str, images: NDArray[np.uint8]) -> None:
    def grpcurl(*arguments: str, **request: Any) -> str:
        data = ("-d", json.dumps(request)) if request else ()
        return run("grpcurl", "-plaintext", *data, address, *arguments)

    services = grpcurl("list").split()
    assert {"mnist37.v1.Mnist37Service", "inference.GRPCInferenceService"} < set(services)
    for service in services:
        assert f"{service} is a service" in grpcurl("describe", service)
    assert "rpc Train (" in grpcurl("describe", "mnist37.v1.Mnist37Service.Train")

    assert json.loads(grpcurl("grpc.health.v1.Health/Check")) == {"status": "SERVING"}
    expected = client.predict(images[0])
    pixels = base64.b64encode(images[0].tobytes()).decode()
    answer = json.loads(grpcurl("mnist37.v1.Mnist37Service/Predict", pixels=pixels))
    assert np.float32(answer["probabilities"][0]) == expected.probabilities[0]
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 784]}
    request: dict[str, Any] = {
        "model_name": "mnist37",
        "inputs": [tensor],
        "raw_input_contents": [pixels],
    }
    answer = json.loads(grpcurl("inference.GRPCInferenceService/ModelInfer", **request))
    assert answer["model_version"] == str(expected.version)
    raw = base64.b64decode(answer["raw_output_contents"][0])
    assert np.frombuffer(raw, "<f4").tolist() == expected.probabilities.tolist()


def test_tensorboard_reads_a_run_s_event_files(client: Client, tmp_path: Path) -> None:
    curve = list(client.train(epochs=5))
    items = client.watch_run(curve[0].run)
    log = TensorBoardLog(tmp_path)
    list(log.record(items, lambda version: client.get_model(version=version)))
    found = json.loads(
        run("python", str(HERE / "with_tensorboard.py"), str(tmp_path / f"run-{curve[0].run}"))
    )
    assert found["scalars"] == {
        tag: [[each.epoch, float(np.float32(getattr(each, name)))] for each in curve]
        for tag, name in (
            ("loss/training", "train_loss"),
            ("loss/validation", "valid_loss"),
            ("accuracy/validation", "valid_accuracy"),
        )
    }
    assert found["images"] == {"weights": [[step, 224, 224] for step in (1, 2, 4, 5)]}
    assert found["tensors"] == ["settings/text_summary"]
