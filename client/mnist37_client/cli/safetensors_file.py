"""A safetensors file of the parameters, with the names of torch.nn.Linear(784, 1).

PyTorch loads it:

model = torch.nn.Linear(784, 1)
model.load_state_dict(safetensors.torch.load_file("model.safetensors"))
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mnist37_client.errors import InvalidInput
from mnist37_client.files.bounded_file import read_bounded
from mnist37_client.files.new_file import write_new
from mnist37_client.images import PIXELS
from mnist37_client.results import Model


def save_model(model: Model, path: Path) -> None:
    """Write `weight` (1, 784) and `bias` (1,), float32, to a file.

    Raises:
        InvalidInput: the file cannot be written.
    """
    tensors = {"weight": model.weights.reshape(1, PIXELS), "bias": model.bias.reshape(1)}
    metadata = {"format": "pt", "version": str(model.version), "digest": model.digest}
    content = save(tensors, metadata)
    try:
        try:
            write_new(path, content)
        except FileExistsError:
            path.write_bytes(content)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be written: {error.strerror}") from None


def load_model(path: Path) -> tuple[NDArray[np.float32], np.float32]:
    """Return weights (784,) and bias from a safetensors file.

    Raises:
        InvalidInput: the file cannot be read, or holds other tensors.
    """
    try:
        tensors = load(read_bounded(path))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}") from None
    except KeyError as error:
        raise InvalidInput(f"{path}: holds {error.args[0]}; must hold float32") from None
    except SafetensorError:
        raise InvalidInput(f"{path}: not a safetensors file") from None
    shapes = {name: (tensor.shape, str(tensor.dtype)) for name, tensor in tensors.items()}
    if shapes != {"weight": ((1, PIXELS), "float32"), "bias": ((1,), "float32")}:
        raise InvalidInput(
            f"{path}: holds {shapes}; must hold weight (1, 784) and bias (1,), float32"
        )
    return tensors["weight"].reshape(-1), tensors["bias"][0]
