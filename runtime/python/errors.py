"""The error that the native runtime's failures become."""

from __future__ import annotations


class RuntimeFailure(RuntimeError):
    """A call into the runtime failed.

    Attributes:
        code: the status number, the same as fretsaw-run's exit code.
        status: its name, e.g. ``"corrupt"``.
    """

    def __init__(self, code: int, status: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
