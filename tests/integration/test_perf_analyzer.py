"""The calls of NVIDIA's perf_analyzer, in its order, and what it computes from the answers.

`make perf` runs the program itself, where it can run. It takes the shape of its batches from the
metadata and max_batch_size, and its report from the differences of the statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import grpc
import numpy as np
import pytest
from mnist37_client import Client
from mnist37_client.local_server import LocalServer
from mnist37_protos.inference import open_inference_pb2 as pb
from mnist37_protos.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub

TIMEOUT = 20
CALLS = 60  # in a window, of which it measures several
WINDOWS = 3


@pytest.fixture(scope="module")
def alone() -> Iterator[str]:
    """Return the address of a server whose predictions nobody else counts."""
    with LocalServer("--device", "cpu") as server:
        yield server.address


class PerfAnalyzer:
    """The program, as far as it calls a server: one caller, with random pixels.

    Args:
        stub: of the server.
        batch_size: its option -b.
        version: its option -x; it asks for this version throughout.
    """

    def __init__(self, stub: Any, batch_size: int, version: str = "") -> None:
        self._stub = stub
        self._version = version
        about = {"name": "mnist37", "version": version}
        metadata = stub.ModelMetadata(pb.ModelMetadataRequest(**about), timeout=TIMEOUT)
        config = stub.ModelConfig(pb.ModelConfigRequest(**about), timeout=TIMEOUT).config
        server = stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=TIMEOUT)
        assert "statistics" in server.extensions, "otherwise it reports nothing of the server"
        assert config.max_batch_size >= batch_size > 0, "otherwise it refuses -b"
        (tensor,) = metadata.inputs
        (described,) = config.input
        assert described.name == tensor.name, "it looks each input of the configuration up"
        # With max_batch_size above 0 the first number of a shape is the batch.
        shape = [batch_size, *tensor.shape[1:]]
        assert min(shape) > 0, "otherwise it needs --shape"
        pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
        outputs = [
            pb.ModelInferRequest.InferRequestedOutputTensor(name=output.name)
            for output in metadata.outputs
        ]
        self._request = pb.ModelInferRequest(
            model_name=metadata.name,
            model_version=version,
            inputs=[{"name": tensor.name, "datatype": tensor.datatype, "shape": shape}],
            outputs=outputs,
            raw_input_contents=[pixels.tobytes()],
        )

    def statistics(self) -> dict[tuple[str, str], pb.ModelStatistics]:
        """Return the statistics by model and version."""
        request = pb.ModelStatisticsRequest(name="mnist37", version=self._version)
        entries = self._stub.ModelStatistics(request, timeout=TIMEOUT).model_stats
        return {(entry.name, entry.version): entry for entry in entries}

    def measure(self, *, streaming: bool) -> tuple[int, int, dict[str, int]]:
        """Make the calls of a window; return its report of the server.

        Returns:
            The inferences, the executions, and the successful requests, by each count of them.
        """
        before = self.statistics()
        if streaming:
            requests = iter([self._request] * CALLS)
            answers = list(self._stub.ModelStreamInfer(requests, timeout=TIMEOUT))
            assert not any(answer.error_message for answer in answers)
            assert len(answers) == CALLS
        else:
            for _ in range(CALLS):
                self._stub.ModelInfer(self._request, timeout=TIMEOUT)
        after = self.statistics()
        key = "mnist37", self._version
        if not self._version:  # it takes the version whose queue count has risen, as a number
            queued = {
                key: entry.inference_stats.queue.count
                - before.get(key, pb.ModelStatistics()).inference_stats.queue.count
                for key, entry in after.items()
            }
            (key,) = (key for key, count in queued.items() if count > 0)
            assert str(int(key[1])) == key[1]
        # Where it finds no entry before, it takes the counts since the server's start for its own.
        first, last = before.get(key, pb.ModelStatistics()), after[key]
        parts = ("success", "queue", "compute_input", "compute_infer", "compute_output")
        counts, times = {}, {}
        for part in parts:
            old, new = (getattr(entry.inference_stats, part) for entry in (first, last))
            counts[part], times[part] = new.count - old.count, new.ns - old.ns
        assert times["success"] >= sum(times.values()) - times["success"] - len(parts)
        assert times["compute_infer"] > 0
        return (
            last.inference_count - first.inference_count,
            last.execution_count - first.execution_count,
            counts,
        )


@pytest.mark.parametrize("training", [False, True], ids=["at rest", "beside a run"])
@pytest.mark.parametrize("streaming", [False, True], ids=["unary", "streaming"])
@pytest.mark.parametrize("batch_size", [1, 64])
def test_its_report_has_its_own_calls_exactly(
    alone: str, batch_size: int, streaming: bool, training: bool
) -> None:
    with (
        grpc.insecure_channel(alone) as channel,
        Client(alone) as client,
        client.train(epochs=1_000_000) if training else nullcontext() as run,
    ):
        if run is not None:
            next(run)
        analyzer = PerfAnalyzer(GRPCInferenceServiceStub(channel), batch_size)
        for _ in range(WINDOWS):
            inferences, executions, counts = analyzer.measure(streaming=streaming)
            assert (inferences, executions) == (CALLS * batch_size, CALLS)
            assert set(counts.values()) == {CALLS}
        if run is not None:
            next(run)  # it is still under way


def test_it_can_measure_one_version(alone: str) -> None:
    with grpc.insecure_channel(alone) as channel, Client(alone) as client:
        version = client.step().version
        client.step()
        analyzer = PerfAnalyzer(GRPCInferenceServiceStub(channel), 8, str(version))
        assert analyzer.measure(streaming=False)[:2] == (CALLS * 8, CALLS)
