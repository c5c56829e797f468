"""Drive a compiled encoder from Python."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fretsaw.backends.program.serialize import to_bytes
from fretsaw.backends.tvm.build import Program
from tests.backends.program.walk import Walker


class EncoderRunner:
    """One program; sequences go in as lists of ids."""

    def __init__(self, program: Program, variant: str) -> None:
        code, _ = program.variants[variant]
        self.walker = Walker(to_bytes(program.steps), code, [t.make() for t in program.tensors])
        self.entry = str(program.program["entry"])

    def __call__(self, sequences: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
        """Embeddings [B, D], or hidden states [T, D]."""
        lengths = [len(s) for s in sequences]
        tokens = np.concatenate([np.asarray(s, np.int32) for s in sequences])
        positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
        cu = np.cumsum([0, *lengths]).astype(np.int32)
        inputs = {"tokens": tokens, "positions": positions, "cu": cu}
        out: np.ndarray = self.walker.run(self.entry, {"T": len(tokens), "B": len(lengths)}, inputs, {})
        return out
