"""Drive a compiled encoder from Python."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from fretsaw.backends.tvm.build import Program


class EncoderRunner:
    """One program; sequences go in as lists of ids."""

    def __init__(self, program: Program, variant: str) -> None:
        code, _ = program.variants[variant]
        with tempfile.TemporaryDirectory() as folder:  # once loaded, the code needs its file no more
            path = Path(folder) / "code.so"
            path.write_bytes(code)
            machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
        self.encode = machine[str(program.program["entry"])]
        self.weights = [tvm.runtime.tensor(t.make()) for t in program.tensors]

    def __call__(self, sequences: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
        """Embeddings [B, D], or hidden states [T, D]."""
        lengths = [len(s) for s in sequences]
        tokens = np.concatenate([np.asarray(s, np.int32) for s in sequences])
        positions = np.concatenate([np.arange(n, dtype=np.int32) for n in lengths])
        cu = np.cumsum([0, *lengths]).astype(np.int32)
        out: np.ndarray = self.encode(*map(tvm.runtime.tensor, (tokens, positions, cu)), *self.weights).numpy()
        return out
