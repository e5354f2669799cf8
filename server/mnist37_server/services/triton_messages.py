"""The answers to Triton's extensions of the Open Inference Protocol.

They are written for Triton's clients. perf_analyzer sends batches where max_batch_size is above 0,
and compares the statistics before and after its calls, by model and version.
"""

from __future__ import annotations

from mnist37_protos.inference import open_inference_pb2 as pb

from mnist37_server.observability.prediction_counts import PredictionTotals
from mnist37_server.services import tensors

# Of Triton's names for its extensions, those that are here as a whole. `model_repository` is not:
# it loads and unloads models too, and only its index is here.
EXTENSIONS = ["model_configuration", "statistics"]
PLATFORM, BACKEND = "pytorch", "mnist37"
# The version of the statistics, which count all versions together. The newest version would not
# do: while the model is trained, perf_analyzer would find no statistics of it before its calls, and
# take the counts since the server's start for its own.
ALL_VERSIONS = "1"
READY, UNAVAILABLE = "READY", "UNAVAILABLE"
# Of a message, for all but the pixels: names, the shape, an id, parameters.
FRAME_BYTES = 4096
IMAGE_BYTES = 784


def model_config(name: str, max_message_mib: int) -> pb.ModelConfig:
    """Return the configuration, which agrees with the model's metadata.

    Args:
        name: of the model.
        max_message_mib: the size limit of a message, in MiB.
    """
    return pb.ModelConfig(
        name=name,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=(max_message_mib * 2**20 - FRAME_BYTES) // IMAGE_BYTES,
        input=[
            pb.ModelInput(name=each.name, data_type=data_type(each), dims=each.shape[1:])
            for each in tensors.INPUTS
        ],
        output=[
            pb.ModelOutput(name=each.name, data_type=data_type(each), dims=each.shape[1:])
            for each in tensors.OUTPUTS
        ],
    )


def data_type(tensor: pb.ModelMetadataResponse.TensorMetadata) -> str:
    """Return the name of a tensor's datatype in the configuration."""
    return f"TYPE_{tensor.datatype}"


def model_statistics(name: str, version: str, totals: PredictionTotals) -> pb.ModelStatistics:
    """Return the statistics.

    Args:
        name: of the model.
        version: the version that the request names; empty means all.
        totals: what was counted.
    """
    parts = {
        "queue": totals.wait_seconds,
        "compute_input": totals.input_seconds,
        "compute_infer": totals.compute_seconds,
        "compute_output": totals.output_seconds,
    }
    return pb.ModelStatistics(
        name=name,
        version=version or ALL_VERSIONS,
        last_inference=0 if totals.ended_at is None else round(totals.ended_at * 1000),
        inference_count=totals.images,
        execution_count=totals.answered,
        inference_stats=pb.InferStatistics(
            success=duration(totals.answered, sum(parts.values())),
            fail=duration(totals.failed, totals.failed_seconds),
            **{part: duration(totals.answered, seconds) for part, seconds in parts.items()},
        ),
    )


def duration(count: int, seconds: float) -> pb.StatisticDuration:
    """Return a count with its time."""
    return pb.StatisticDuration(count=count, ns=round(seconds * 1e9))
