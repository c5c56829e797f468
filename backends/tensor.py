"""A weight on its way into an artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fretsaw.ir import TensorType
from fretsaw.ir.types import ITEMSIZE


@dataclass(frozen=True)
class Tensor:
    """A weight as the program reads it: packed at compile time, stored in the artifact, mapped at run time.

    Args:
        name: Unique in the artifact.
        type: dtype and static shape of the packed array.
        make: Computes the packed array (bf16 as uint16 bits). Called once, when the artifact is written.
    """

    name: str
    type: TensorType
    make: Callable[[], np.ndarray] = field(compare=False, repr=False)

    @property
    def nbytes(self) -> int:
        return int(np.prod([int(d) for d in self.type.shape if isinstance(d, int)])) * ITEMSIZE[self.type.dtype]
