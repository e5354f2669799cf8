"""The Python client of mnist37, which trains, queries and inspects the live model.

    from mnist37_client import Client

    with Client("127.0.0.1:50051") as client:
        for progress in client.train(epochs=20):
            print(progress.epoch, progress.valid_accuracy)
        print(client.predict(images).digits)

AsyncClient has the same methods for asyncio. Arguments and results are numpy arrays.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "AsyncTrainingRun",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "Exhausted",
    "FailedPrecondition",
    "Follower",
    "HistoryLost",
    "InvalidInput",
    "InvalidResponse",
    "Loss",
    "Mnist37Error",
    "Model",
    "NotFound",
    "NotOwner",
    "PermissionDenied",
    "Position",
    "Prediction",
    "Progress",
    "Run",
    "ServerError",
    "StepResult",
    "Tag",
    "TrainingRun",
    "Unauthenticated",
    "Unavailable",
    "Version",
    "read_digit",
    "validation_images",
]

if TYPE_CHECKING:
    from mnist37_client.aio import AsyncClient
    from mnist37_client.client import Client
    from mnist37_client.errors import (
        Aborted,
        AlreadyExists,
        Cancelled,
        DeadlineExceeded,
        Exhausted,
        FailedPrecondition,
        HistoryLost,
        InvalidInput,
        InvalidResponse,
        Mnist37Error,
        NotFound,
        NotOwner,
        PermissionDenied,
        ServerError,
        Unauthenticated,
        Unavailable,
    )
    from mnist37_client.images import validation_images
    from mnist37_client.pictures import read_digit
    from mnist37_client.results import (
        Follower,
        Loss,
        Model,
        Position,
        Prediction,
        Progress,
        Run,
        StepResult,
        Tag,
        Version,
    )
    from mnist37_client.runs.async_training_run import AsyncTrainingRun
    from mnist37_client.runs.training_run import TrainingRun
else:

    def __getattr__(name: str) -> object:
        """Import the module that defines a public name on the first access to the name.

        Most programs need only a few of these modules, so the package imports none of them early.
        """
        for module, names in _NAMES.items():
            if name in names:
                value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


_NAMES = {
    "aio": ("AsyncClient",),
    "runs.async_training_run": ("AsyncTrainingRun",),
    "client": ("Client",),
    "runs.training_run": ("TrainingRun",),
    "images": ("validation_images",),
    "pictures": ("read_digit",),
    "results": (
        *("Follower", "Loss", "Model", "Position", "Prediction", "Progress", "Run"),
        *("StepResult", "Tag", "Version"),
    ),
}
_NAMES["errors"] = tuple(name for name in __all__ if name not in sum(_NAMES.values(), ()))
