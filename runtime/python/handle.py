"""A native handle that is freed after its last call, whichever thread closes it and when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from ctypes import c_void_p
from types import TracebackType

from fretsaw.runtime.errors import RuntimeFailure


class Handle:
    """``with handle as pointer:`` around each native call; closed meanwhile, it is freed when the call returns.

    Args:
        what: what a use after the end is told of, e.g. ``"the model"``.
        pointer: from the library.
        free: the library's ``*_close``.
    """

    def __init__(self, what: str, pointer: c_void_p, free: Callable[[c_void_p], object]) -> None:
        self._what = what
        self._pointer = pointer
        self._free = free
        # Reentrant: a signal or the garbage collector may call between any two lines.
        self._lock = threading.RLock()
        self._uses = 0
        self._closed = False

    def __enter__(self) -> c_void_p:
        with self._lock:
            if self._closed:
                raise RuntimeFailure(
                    2, "usage", f"{self._what} was closed; use it before its close() or inside its with"
                )
            self._uses += 1
        return self._pointer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._uses -= 1
            last = self._closed and self._uses == 0
        if last:
            self._free(self._pointer)

    def close(self) -> None:
        """Refuse further calls and free it, or leave that to the last call that is on its way; again is allowed."""
        with self._lock:
            last = not self._closed and self._uses == 0
            self._closed = True
        if last:
            self._free(self._pointer)
