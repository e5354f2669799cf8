"""On a CUDA device: the same contract, the CPU's results within float32, its own to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mnist37_client import Client, Model
from mnist37_client.local_server import LocalServer
from twin import Twin

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def trained() -> tuple[Model, float]:
    """By a server of its own: three epochs and a step."""
    with LocalServer("--device", "cuda") as server, Client(server.address) as client:
        assert client.get_model().digest == Twin().digest, "drawn on the CPU whatever the device"
        loss = client.train(epochs=3).wait().valid_loss
        client.step()
        return client.get_model(), loss


def test_the_device_gives_the_cpus_results_and_its_own_to_the_bit() -> None:
    model, loss = trained()
    again, loss_again = trained()
    assert model.device == "cuda:0"
    assert (model.digest, loss) == (again.digest, loss_again)
    twin = Twin()
    twin.train(3)
    twin.step()
    np.testing.assert_allclose(model.weights, twin.parameters[:-1].numpy(), atol=1e-4)
