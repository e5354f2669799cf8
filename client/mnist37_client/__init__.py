"""The client of mnist37: train, predict and look at the live model, in a few lines.

    from mnist37_client import Client

    with Client("127.0.0.1:50051") as client:
        for progress in client.train(epochs=20):
            print(progress.epoch, progress.valid_accuracy)
        print(client.predict(images).digits)

AsyncClient has the same methods for asyncio. numpy arrays go in and come out.
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
    "InvalidInput",
    "Loss",
    "Mnist37Error",
    "Model",
    "NotFound",
    "PermissionDenied",
    "Prediction",
    "Progress",
    "Run",
    "ServerError",
    "Stepped",
    "TrainingRun",
    "Unauthenticated",
    "Unavailable",
    "Version",
    "validation_images",
]

if TYPE_CHECKING:
    from mnist37_client.aio import AsyncClient, AsyncTrainingRun
    from mnist37_client.client import Client, TrainingRun
    from mnist37_client.errors import (
        Aborted,
        AlreadyExists,
        Cancelled,
        DeadlineExceeded,
        Exhausted,
        InvalidInput,
        Mnist37Error,
        NotFound,
        PermissionDenied,
        ServerError,
        Unauthenticated,
        Unavailable,
    )
    from mnist37_client.images import validation_images
    from mnist37_client.results import Loss, Model, Prediction, Progress, Run, Stepped, Version
else:

    def __getattr__(name: str) -> object:
        """Loads them all when the first is asked for: the command line's help does without."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        for module in ("aio", "client", "errors", "images", "results"):
            found = vars(import_module(f"{__name__}.{module}"))
            globals().update({known: found[known] for known in __all__ if known in found})
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
