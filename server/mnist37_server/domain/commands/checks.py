"""The ranges of the API's values; each check raises a refusal that names the field."""

from __future__ import annotations

import re

from mnist37_server.errors import InvalidArgument

TRAINING_IMAGES = 12_396
EPOCHS_MAX = 1_000_000
LEARNING_RATE_MAX = 3e38  # below the largest float32: the kernels compute in float32
REQUEST_ID_LENGTH_MAX = 128  # characters
RUN_NAME_LENGTH_MAX = 128  # characters
TAG_NAME_LENGTH_MAX = 128  # characters
TAG_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{TAG_NAME_LENGTH_MAX}}}")
BEST_TAG = re.compile(r"best@[1-9][0-9]{0,18}")  # the server's tags; the number of a run follows @


def check_range(field: str, value: int, minimum: int, maximum: int) -> None:
    """Raise InvalidArgument unless minimum <= value <= maximum."""
    if not minimum <= value <= maximum:
        raise InvalidArgument(field, f"got {value:,}", f"must be {minimum:,} to {maximum:,}")


def check_learning_rate(value: float, field: str = "learning_rate") -> None:
    """Raise InvalidArgument unless the learning rate is above 0 and finite as a float32."""
    if not 0 < value <= LEARNING_RATE_MAX:  # false for NaN too
        raise InvalidArgument(
            field,
            f"got {value:g}",
            f"must be above 0 and at most {LEARNING_RATE_MAX:.1g}",
        )


def check_length(field: str, value: str, maximum: int) -> None:
    """Raise InvalidArgument unless the text has 1 to `maximum` characters."""
    if not 1 <= len(value) <= maximum:
        raise InvalidArgument(field, f"got {len(value):,} characters", f"must have 1 to {maximum}")


def check_request_id(request_id: str) -> None:
    """Raise InvalidArgument unless the request_id has 1 to 128 characters."""
    check_length("request_id", request_id, REQUEST_ID_LENGTH_MAX)


def is_tag(text: str) -> bool:
    """Return whether a tag can have this name, one of a caller or one of the server."""
    is_name = TAG_NAME.fullmatch(text) is not None and not text.isdigit()
    return is_name or BEST_TAG.fullmatch(text) is not None


def check_tag_name(name: str) -> None:
    """Raise InvalidArgument unless a caller may set a tag of this name."""
    shown = repr(name) if len(name) <= TAG_NAME_LENGTH_MAX else f"{len(name):,} characters"
    if "@" in name:
        raise InvalidArgument(
            "name", f"got {shown}", "names with @ are the server's; choose another name"
        )
    if not is_tag(name):
        raise InvalidArgument(
            "name",
            f"got {shown}",
            f"must be 1 to {TAG_NAME_LENGTH_MAX} of A-Z, a-z, 0-9, '.', '_' and '-', and not a"
            " number",
        )
