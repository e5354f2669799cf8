"""Requests with a fingerprint, which shows whether a repeated request_id repeats its request."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod


class Fingerprinted(ABC):
    """A request with a fingerprint, which is stored in place of its values.

    The store keeps the fingerprint with the request_id, so the hashed text never changes. For this
    reason `hashed_fields` spells out the method's name and the fields' names and order: they do not
    follow the names of the classes and the attributes. A field that a later release adds is hashed
    only where its value is not the default (`added_fields`), so requests of earlier releases keep
    their fingerprints.
    """

    @abstractmethod
    def hashed_fields(self) -> tuple[str, dict[str, object]]:
        """Return the method's name, and the values by the names that are hashed."""

    @staticmethod
    def added_fields(**fields: tuple[object, object]) -> dict[str, object]:
        """Return the values of later fields, without the values that are the defaults.

        Args:
            fields: the value of each field, and its default.
        """
        return {name: value for name, (value, default) in fields.items() if value != default}

    @property
    def fingerprint(self) -> bytes:
        """Return 32 bytes that are equal only for requests of one method with equal values."""
        # No cached_property: in Python 3.11 it holds one lock for all instances, so every request
        # would wait while one large request is hashed.
        digest: bytes | None = self.__dict__.get("_fingerprint")
        if digest is None:
            method, values = self.hashed_fields()
            digest = hashlib.sha256(f"{method} {values!r}".encode()).digest()
            self.__dict__["_fingerprint"] = digest
        return digest
