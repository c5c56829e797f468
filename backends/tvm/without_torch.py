"""Import TVM without PyTorch: its Python package imports torch where that is installed, to convert tensors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_torch() -> Iterator[None]:
    """What is imported inside finds no torch, unless the process has it already; afterwards it can be imported again.

    Torch takes longer to import than everything else that a compile needs when its graph and kernels are kept.
    """
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # this is how an import is made to fail
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]
