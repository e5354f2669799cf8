"""The check of times that a caller gives."""

from __future__ import annotations

import math
import numbers
import reprlib

import numpy as np

from mnist37_client.errors import InvalidInput

# gRPC takes a deadline in some hundred years for one that has passed. No call lasts a year.
TIMEOUT_MAX_SECONDS = 365 * 86_400.0


def check_timeout(timeout: float | None) -> float | None:
    """Return the time limit of a call in seconds; None if it has none, or more than a year.

    Raises:
        InvalidInput: it is no number, or not above 0.
    """
    if timeout is None:
        return None
    seconds = _check_number("timeout", timeout, "above 0, or None for no limit")
    if seconds == 0:
        raise InvalidInput("timeout: got 0; must be seconds, above 0, or None for no limit")
    return seconds if seconds <= TIMEOUT_MAX_SECONDS else None


def check_retry_for(retry_for: float) -> float:
    """Return the time in seconds for which calls are retried, which may be infinite.

    Raises:
        InvalidInput: it is no number, or below 0.
    """
    return _check_number("retry_for", retry_for, "0 or more")


def _check_number(name: str, value: float, expected: str) -> float:
    """Return a number that is 0 or more."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    if not is_number or not value >= 0:  # true for NaN too
        raise InvalidInput(f"{name}: got {reprlib.repr(value)}; must be seconds, {expected}")
    try:
        return float(value)
    except OverflowError:
        return math.inf
