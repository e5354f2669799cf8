"""The client of mnist37: train, predict and look at the live model, in a few lines.

    from mnist37_client import Client

    with Client("127.0.0.1:50051") as client:
        for progress in client.train(epochs=20):
            print(progress.epoch, progress.valid_accuracy)
        print(client.predict(images).digits)

AsyncClient has the same methods for asyncio. numpy arrays go in and come out.
"""

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
    ServerError,
    Unavailable,
)
from mnist37_client.images import validation_images
from mnist37_client.results import Loss, Model, Prediction, Progress, Run, Stepped, Version

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
    "Prediction",
    "Progress",
    "Run",
    "ServerError",
    "Stepped",
    "TrainingRun",
    "Unavailable",
    "Version",
    "validation_images",
]
