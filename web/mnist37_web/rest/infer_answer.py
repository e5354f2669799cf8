"""The reply to a request for a prediction: JSON, with the probabilities in it or behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from mnist37_web.rest.infer_request import BINARY_SIZE, OUTPUT


class InferAnswer(NamedTuple):
    """A prediction of the server."""

    model: str
    version: str
    probabilities: NDArray[np.float32]
    parameters: Mapping[str, Any] = {}

    def reply(
        self, request_id: str | None, is_binary: bool
    ) -> tuple[list[tuple[bytes, bytes]], bytes]:
        """Return the headers and the body of the reply.

        Args:
            request_id: of the request, if it has one.
            is_binary: whether the probabilities follow the JSON as bytes.
        """
        output: dict[str, Any] = {
            "name": OUTPUT,
            "datatype": "FP32",
            "shape": [len(self.probabilities)],
        }
        content: dict[str, Any] = {
            "model_name": self.model,
            "model_version": self.version,
            "outputs": [output],
        }
        if request_id is not None:
            content["id"] = request_id
        if self.parameters:
            content["parameters"] = self.parameters
        if is_binary:
            tail = self.probabilities.astype("<f4", copy=False).tobytes()
            output["parameters"] = {BINARY_SIZE: len(tail)}
            text = orjson.dumps(content)
            headers = [
                (b"content-type", b"application/octet-stream"),
                (b"inference-header-content-length", b"%d" % len(text)),
            ]
            text += tail
        else:
            # As doubles, which are equal to the floats: a reader of either gets the same bits.
            output["data"] = self.probabilities.tolist()
            text = orjson.dumps(content)
            headers = [(b"content-type", b"application/json")]
        headers.append((b"content-length", b"%d" % len(text)))
        return headers, text
