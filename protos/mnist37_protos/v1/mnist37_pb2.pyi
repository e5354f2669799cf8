import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Split(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPLIT_UNSPECIFIED: _ClassVar[Split]
    SPLIT_TRAIN: _ClassVar[Split]
    SPLIT_VALID: _ClassVar[Split]

class Origin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORIGIN_UNSPECIFIED: _ClassVar[Origin]
    ORIGIN_INITIALIZE: _ClassVar[Origin]
    ORIGIN_STEP: _ClassVar[Origin]
    ORIGIN_TRAIN: _ClassVar[Origin]
    ORIGIN_RESTORE: _ClassVar[Origin]
    ORIGIN_IMPORT: _ClassVar[Origin]

class RunState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUN_STATE_UNSPECIFIED: _ClassVar[RunState]
    RUN_STATE_RUNNING: _ClassVar[RunState]
    RUN_STATE_FINISHED: _ClassVar[RunState]
    RUN_STATE_INTERRUPTED: _ClassVar[RunState]
SPLIT_UNSPECIFIED: Split
SPLIT_TRAIN: Split
SPLIT_VALID: Split
ORIGIN_UNSPECIFIED: Origin
ORIGIN_INITIALIZE: Origin
ORIGIN_STEP: Origin
ORIGIN_TRAIN: Origin
ORIGIN_RESTORE: Origin
ORIGIN_IMPORT: Origin
RUN_STATE_UNSPECIFIED: RunState
RUN_STATE_RUNNING: RunState
RUN_STATE_FINISHED: RunState
RUN_STATE_INTERRUPTED: RunState

class Batch(_message.Message):
    __slots__ = ("pixels", "labels")
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    pixels: bytes
    labels: bytes
    def __init__(self, pixels: _Optional[bytes] = ..., labels: _Optional[bytes] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("pixels", "version")
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    pixels: bytes
    version: int
    def __init__(self, pixels: _Optional[bytes] = ..., version: _Optional[int] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("probabilities", "version")
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    version: int
    def __init__(self, probabilities: _Optional[_Iterable[float]] = ..., version: _Optional[int] = ...) -> None: ...

class StepRequest(_message.Message):
    __slots__ = ("batch", "learning_rate", "request_id")
    BATCH_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    batch: Batch
    learning_rate: float
    request_id: str
    def __init__(self, batch: _Optional[_Union[Batch, _Mapping]] = ..., learning_rate: _Optional[float] = ..., request_id: _Optional[str] = ...) -> None: ...

class StepResponse(_message.Message):
    __slots__ = ("loss", "version")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    loss: float
    version: int
    def __init__(self, loss: _Optional[float] = ..., version: _Optional[int] = ...) -> None: ...

class TrainRequest(_message.Message):
    __slots__ = ("epochs", "learning_rate", "batch_size", "seed", "request_id", "coalesce")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    COALESCE_FIELD_NUMBER: _ClassVar[int]
    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    request_id: str
    coalesce: bool
    def __init__(self, epochs: _Optional[int] = ..., learning_rate: _Optional[float] = ..., batch_size: _Optional[int] = ..., seed: _Optional[int] = ..., request_id: _Optional[str] = ..., coalesce: _Optional[bool] = ...) -> None: ...

class TrainResponse(_message.Message):
    __slots__ = ("epoch", "epochs", "train_loss", "valid_loss", "valid_accuracy", "version", "elapsed", "earlier")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALID_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALID_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    EARLIER_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    epochs: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    version: int
    elapsed: _duration_pb2.Duration
    earlier: _containers.RepeatedCompositeFieldContainer[TrainResponse]
    def __init__(self, epoch: _Optional[int] = ..., epochs: _Optional[int] = ..., train_loss: _Optional[float] = ..., valid_loss: _Optional[float] = ..., valid_accuracy: _Optional[float] = ..., version: _Optional[int] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., earlier: _Optional[_Iterable[_Union[TrainResponse, _Mapping]]] = ...) -> None: ...

class GetLossRequest(_message.Message):
    __slots__ = ("split", "batch", "version")
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    split: Split
    batch: Batch
    version: int
    def __init__(self, split: _Optional[_Union[Split, str]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., version: _Optional[int] = ...) -> None: ...

class GetLossResponse(_message.Message):
    __slots__ = ("loss", "accuracy", "count", "version")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    loss: float
    accuracy: float
    count: int
    version: int
    def __init__(self, loss: _Optional[float] = ..., accuracy: _Optional[float] = ..., count: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class InitializeRequest(_message.Message):
    __slots__ = ("seed", "std", "request_id")
    SEED_FIELD_NUMBER: _ClassVar[int]
    STD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    seed: int
    std: float
    request_id: str
    def __init__(self, seed: _Optional[int] = ..., std: _Optional[float] = ..., request_id: _Optional[str] = ...) -> None: ...

class InitializeResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("weights", "bias", "version", "digest", "device")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    weights: bytes
    bias: float
    version: int
    digest: str
    device: str
    def __init__(self, weights: _Optional[bytes] = ..., bias: _Optional[float] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., device: _Optional[str] = ...) -> None: ...

class ListVersionsRequest(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: int
    def __init__(self, limit: _Optional[int] = ...) -> None: ...

class ListVersionsResponse(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[ModelVersion]
    def __init__(self, versions: _Optional[_Iterable[_Union[ModelVersion, _Mapping]]] = ...) -> None: ...

class ModelVersion(_message.Message):
    __slots__ = ("version", "origin", "run", "committed_at")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    version: int
    origin: Origin
    run: int
    committed_at: _timestamp_pb2.Timestamp
    def __init__(self, version: _Optional[int] = ..., origin: _Optional[_Union[Origin, str]] = ..., run: _Optional[int] = ..., committed_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("version", "request_id")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    version: int
    request_id: str
    def __init__(self, version: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class RestoreResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class ImportRequest(_message.Message):
    __slots__ = ("weights", "bias", "request_id")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    weights: bytes
    bias: float
    request_id: str
    def __init__(self, weights: _Optional[bytes] = ..., bias: _Optional[float] = ..., request_id: _Optional[str] = ...) -> None: ...

class ImportResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs",)
    RUNS_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run", "state", "request_id", "epochs", "learning_rate", "batch_size", "seed", "started_at", "version", "last")
    RUN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    run: int
    state: RunState
    request_id: str
    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    started_at: _timestamp_pb2.Timestamp
    version: int
    last: TrainResponse
    def __init__(self, run: _Optional[int] = ..., state: _Optional[_Union[RunState, str]] = ..., request_id: _Optional[str] = ..., epochs: _Optional[int] = ..., learning_rate: _Optional[float] = ..., batch_size: _Optional[int] = ..., seed: _Optional[int] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[int] = ..., last: _Optional[_Union[TrainResponse, _Mapping]] = ...) -> None: ...

class WatchRunRequest(_message.Message):
    __slots__ = ("run", "follow", "coalesce")
    RUN_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    COALESCE_FIELD_NUMBER: _ClassVar[int]
    run: int
    follow: bool
    coalesce: bool
    def __init__(self, run: _Optional[int] = ..., follow: _Optional[bool] = ..., coalesce: _Optional[bool] = ...) -> None: ...

class WatchRunResponse(_message.Message):
    __slots__ = ("run", "progress")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    run: Run
    progress: TrainResponse
    def __init__(self, run: _Optional[_Union[Run, _Mapping]] = ..., progress: _Optional[_Union[TrainResponse, _Mapping]] = ...) -> None: ...
