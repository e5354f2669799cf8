"""Compile a kernel for this machine, or load it from numba's cache, without numba's whole set-up.

Before numba looks into its cache, it registers some 10,000 functions that a compiler may need: a
third of a second and 10 MB in each process. Machine code that comes from the cache needs none of
them, only numba's allocator of arrays. If a kernel is not in the cache, numba registers them all
before it compiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache
from numba.core.runtime.nrt import rtsys

F = TypeVar("F", bound=Callable[..., Any])


class QuickCache(FunctionCache):
    """The cache of one function, which is read without the registration of other functions."""

    def load_overload(self, signature: object, target_context: Any) -> object:  # noqa: ANN401
        """Return the compiled function; None if it is not in the cache."""
        # `refresh` is a method of the context; for the look into the cache this one hides it.
        target_context.refresh = lambda: rtsys.initialize(target_context)
        try:
            found: object = super().load_overload(signature, target_context)  # type: ignore[no-untyped-call]
            return found
        finally:
            del target_context.refresh


def compile_kernel(function: F, signature: object, options: dict[str, Any]) -> F:
    """Return a function compiled for one signature.

    Args:
        function: the function in Python.
        signature: the numba types of the result and the arguments.
        options: of numba.njit.
    """
    dispatcher: Any = numba.njit(**options)(function)
    try:
        dispatcher._cache = QuickCache(function)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        # A read-only system may have no folder for the cache.
        if "cannot cache" not in str(error):
            raise
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return cast(F, dispatcher)
