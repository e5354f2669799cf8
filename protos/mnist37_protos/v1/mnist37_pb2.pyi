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

class Schedule(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULE_UNSPECIFIED: _ClassVar[Schedule]
    SCHEDULE_CONSTANT: _ClassVar[Schedule]
    SCHEDULE_LINEAR: _ClassVar[Schedule]
    SCHEDULE_COSINE: _ClassVar[Schedule]

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
    RUN_STATE_QUEUED: _ClassVar[RunState]
SPLIT_UNSPECIFIED: Split
SPLIT_TRAIN: Split
SPLIT_VALID: Split
SCHEDULE_UNSPECIFIED: Schedule
SCHEDULE_CONSTANT: Schedule
SCHEDULE_LINEAR: Schedule
SCHEDULE_COSINE: Schedule
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
RUN_STATE_QUEUED: RunState

class Position(_message.Message):
    __slots__ = ("start", "version")
    START_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    start: int
    version: int
    def __init__(self, start: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("pixels", "labels")
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    pixels: bytes
    labels: bytes
    def __init__(self, pixels: _Optional[bytes] = ..., labels: _Optional[bytes] = ...) -> None: ...

class PredictRequest(_message.Message):
    __slots__ = ("pixels", "version", "tag", "start", "min_version")
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    pixels: bytes
    version: int
    tag: str
    start: int
    min_version: int
    def __init__(self, pixels: _Optional[bytes] = ..., version: _Optional[int] = ..., tag: _Optional[str] = ..., start: _Optional[int] = ..., min_version: _Optional[int] = ...) -> None: ...

class PredictResponse(_message.Message):
    __slots__ = ("probabilities", "version", "start")
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    version: int
    start: int
    def __init__(self, probabilities: _Optional[_Iterable[float]] = ..., version: _Optional[int] = ..., start: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("loss", "version", "start")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    loss: float
    version: int
    start: int
    def __init__(self, loss: _Optional[float] = ..., version: _Optional[int] = ..., start: _Optional[int] = ...) -> None: ...

class TrainRequest(_message.Message):
    __slots__ = ("epochs", "learning_rate", "batch_size", "seed", "request_id", "coalesce", "name", "schedule", "final_learning_rate", "warmup_epochs", "patience", "min_delta")
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    COALESCE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    FINAL_LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_DELTA_FIELD_NUMBER: _ClassVar[int]
    epochs: int
    learning_rate: float
    batch_size: int
    seed: int
    request_id: str
    coalesce: bool
    name: str
    schedule: Schedule
    final_learning_rate: float
    warmup_epochs: int
    patience: int
    min_delta: float
    def __init__(self, epochs: _Optional[int] = ..., learning_rate: _Optional[float] = ..., batch_size: _Optional[int] = ..., seed: _Optional[int] = ..., request_id: _Optional[str] = ..., coalesce: _Optional[bool] = ..., name: _Optional[str] = ..., schedule: _Optional[_Union[Schedule, str]] = ..., final_learning_rate: _Optional[float] = ..., warmup_epochs: _Optional[int] = ..., patience: _Optional[int] = ..., min_delta: _Optional[float] = ...) -> None: ...

class TrainResponse(_message.Message):
    __slots__ = ("epoch", "epochs", "train_loss", "valid_loss", "valid_accuracy", "version", "elapsed", "earlier", "run", "best_epoch", "stopped_early", "start")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALID_LOSS_FIELD_NUMBER: _ClassVar[int]
    VALID_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_FIELD_NUMBER: _ClassVar[int]
    EARLIER_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    BEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    STOPPED_EARLY_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    epochs: int
    train_loss: float
    valid_loss: float
    valid_accuracy: float
    version: int
    elapsed: _duration_pb2.Duration
    earlier: _containers.RepeatedCompositeFieldContainer[TrainResponse]
    run: int
    best_epoch: int
    stopped_early: bool
    start: int
    def __init__(self, epoch: _Optional[int] = ..., epochs: _Optional[int] = ..., train_loss: _Optional[float] = ..., valid_loss: _Optional[float] = ..., valid_accuracy: _Optional[float] = ..., version: _Optional[int] = ..., elapsed: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., earlier: _Optional[_Iterable[_Union[TrainResponse, _Mapping]]] = ..., run: _Optional[int] = ..., best_epoch: _Optional[int] = ..., stopped_early: _Optional[bool] = ..., start: _Optional[int] = ...) -> None: ...

class GetLossRequest(_message.Message):
    __slots__ = ("split", "batch", "version", "tag", "start", "min_version")
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    split: Split
    batch: Batch
    version: int
    tag: str
    start: int
    min_version: int
    def __init__(self, split: _Optional[_Union[Split, str]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ..., version: _Optional[int] = ..., tag: _Optional[str] = ..., start: _Optional[int] = ..., min_version: _Optional[int] = ...) -> None: ...

class GetLossResponse(_message.Message):
    __slots__ = ("loss", "accuracy", "count", "version", "threes_right", "threes_called_sevens", "sevens_right", "sevens_called_threes", "start")
    LOSS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    THREES_RIGHT_FIELD_NUMBER: _ClassVar[int]
    THREES_CALLED_SEVENS_FIELD_NUMBER: _ClassVar[int]
    SEVENS_RIGHT_FIELD_NUMBER: _ClassVar[int]
    SEVENS_CALLED_THREES_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    loss: float
    accuracy: float
    count: int
    version: int
    threes_right: int
    threes_called_sevens: int
    sevens_right: int
    sevens_called_threes: int
    start: int
    def __init__(self, loss: _Optional[float] = ..., accuracy: _Optional[float] = ..., count: _Optional[int] = ..., version: _Optional[int] = ..., threes_right: _Optional[int] = ..., threes_called_sevens: _Optional[int] = ..., sevens_right: _Optional[int] = ..., sevens_called_threes: _Optional[int] = ..., start: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("version", "start")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    version: int
    start: int
    def __init__(self, version: _Optional[int] = ..., start: _Optional[int] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("version", "tag", "start", "min_version")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    MIN_VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    tag: str
    start: int
    min_version: int
    def __init__(self, version: _Optional[int] = ..., tag: _Optional[str] = ..., start: _Optional[int] = ..., min_version: _Optional[int] = ...) -> None: ...

class GetModelResponse(_message.Message):
    __slots__ = ("weights", "bias", "version", "digest", "device", "start")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    weights: bytes
    bias: float
    version: int
    digest: str
    device: str
    start: int
    def __init__(self, weights: _Optional[bytes] = ..., bias: _Optional[float] = ..., version: _Optional[int] = ..., digest: _Optional[str] = ..., device: _Optional[str] = ..., start: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("version", "request_id", "tag")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    version: int
    request_id: str
    tag: str
    def __init__(self, version: _Optional[int] = ..., request_id: _Optional[str] = ..., tag: _Optional[str] = ...) -> None: ...

class RestoreResponse(_message.Message):
    __slots__ = ("version", "start")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    version: int
    start: int
    def __init__(self, version: _Optional[int] = ..., start: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("version", "start")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    version: int
    start: int
    def __init__(self, version: _Optional[int] = ..., start: _Optional[int] = ...) -> None: ...

class TagVersionRequest(_message.Message):
    __slots__ = ("name", "version", "tag", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    tag: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., tag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class TagVersionResponse(_message.Message):
    __slots__ = ("version", "start")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    version: int
    start: int
    def __init__(self, version: _Optional[int] = ..., start: _Optional[int] = ...) -> None: ...

class ListTagsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListTagsResponse(_message.Message):
    __slots__ = ("tags",)
    TAGS_FIELD_NUMBER: _ClassVar[int]
    tags: _containers.RepeatedCompositeFieldContainer[Tag]
    def __init__(self, tags: _Optional[_Iterable[_Union[Tag, _Mapping]]] = ...) -> None: ...

class Tag(_message.Message):
    __slots__ = ("name", "version", "run", "tagged_at")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    TAGGED_AT_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    run: int
    tagged_at: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., run: _Optional[int] = ..., tagged_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class DeleteTagRequest(_message.Message):
    __slots__ = ("name", "request_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    name: str
    request_id: str
    def __init__(self, name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteTagResponse(_message.Message):
    __slots__ = ("version", "start")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    version: int
    start: int
    def __init__(self, version: _Optional[int] = ..., start: _Optional[int] = ...) -> None: ...

class ListRunsRequest(_message.Message):
    __slots__ = ("name", "states", "page_size", "page_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    states: _containers.RepeatedScalarFieldContainer[RunState]
    page_size: int
    page_token: str
    def __init__(self, name: _Optional[str] = ..., states: _Optional[_Iterable[_Union[RunState, str]]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRunsResponse(_message.Message):
    __slots__ = ("runs", "next_page_token")
    RUNS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    next_page_token: str
    def __init__(self, runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("run", "state", "request_id", "epochs", "learning_rate", "batch_size", "seed", "started_at", "version", "last", "name", "schedule", "final_learning_rate", "warmup_epochs", "patience", "min_delta", "best_epoch", "best_version", "queue_position")
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
    NAME_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    FINAL_LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    WARMUP_EPOCHS_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    MIN_DELTA_FIELD_NUMBER: _ClassVar[int]
    BEST_EPOCH_FIELD_NUMBER: _ClassVar[int]
    BEST_VERSION_FIELD_NUMBER: _ClassVar[int]
    QUEUE_POSITION_FIELD_NUMBER: _ClassVar[int]
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
    name: str
    schedule: Schedule
    final_learning_rate: float
    warmup_epochs: int
    patience: int
    min_delta: float
    best_epoch: int
    best_version: int
    queue_position: int
    def __init__(self, run: _Optional[int] = ..., state: _Optional[_Union[RunState, str]] = ..., request_id: _Optional[str] = ..., epochs: _Optional[int] = ..., learning_rate: _Optional[float] = ..., batch_size: _Optional[int] = ..., seed: _Optional[int] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[int] = ..., last: _Optional[_Union[TrainResponse, _Mapping]] = ..., name: _Optional[str] = ..., schedule: _Optional[_Union[Schedule, str]] = ..., final_learning_rate: _Optional[float] = ..., warmup_epochs: _Optional[int] = ..., patience: _Optional[int] = ..., min_delta: _Optional[float] = ..., best_epoch: _Optional[int] = ..., best_version: _Optional[int] = ..., queue_position: _Optional[int] = ...) -> None: ...

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

class FollowRequest(_message.Message):
    __slots__ = ("position", "id", "address", "min_interval")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MIN_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    position: Position
    id: str
    address: str
    min_interval: _duration_pb2.Duration
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ..., id: _Optional[str] = ..., address: _Optional[str] = ..., min_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class FollowResponse(_message.Message):
    __slots__ = ("position", "parameters", "origin", "run", "starts", "age", "owner_lost", "owner", "followers")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    STARTS_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    OWNER_LOST_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    FOLLOWERS_FIELD_NUMBER: _ClassVar[int]
    position: Position
    parameters: bytes
    origin: Origin
    run: int
    starts: _containers.RepeatedCompositeFieldContainer[Position]
    age: _duration_pb2.Duration
    owner_lost: bool
    owner: str
    followers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, position: _Optional[_Union[Position, _Mapping]] = ..., parameters: _Optional[bytes] = ..., origin: _Optional[_Union[Origin, str]] = ..., run: _Optional[int] = ..., starts: _Optional[_Iterable[_Union[Position, _Mapping]]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., owner_lost: _Optional[bool] = ..., owner: _Optional[str] = ..., followers: _Optional[_Iterable[str]] = ...) -> None: ...

class ListFollowersRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListFollowersResponse(_message.Message):
    __slots__ = ("followers",)
    FOLLOWERS_FIELD_NUMBER: _ClassVar[int]
    followers: _containers.RepeatedCompositeFieldContainer[Follower]
    def __init__(self, followers: _Optional[_Iterable[_Union[Follower, _Mapping]]] = ...) -> None: ...

class Follower(_message.Message):
    __slots__ = ("id", "address", "position", "age", "connected_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    AGE_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    address: str
    position: Position
    age: _duration_pb2.Duration
    connected_at: _timestamp_pb2.Timestamp
    def __init__(self, id: _Optional[str] = ..., address: _Optional[str] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., connected_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
