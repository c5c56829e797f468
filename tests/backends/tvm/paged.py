"""Drive a compiled step program from Python with a paged cache: the runtime's contract in forty lines of NumPy."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tvm
from tvm import relax

from fretsaw.backends.tvm.build import Program


class PagedRunner:
    """One program, ``sequences`` sequences, pages handed out in a scrambled order so that mixing them up shows."""

    def __init__(self, program: Program, variant: str, sequences: int = 1, pages_each: int = 8, seed: int = 0) -> None:
        code, _ = program.variants[variant]
        with tempfile.TemporaryDirectory() as folder:  # once loaded, the code needs its file no more
            path = Path(folder) / "code.so"
            path.write_bytes(code)
            self.step_fn = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())["step"]
        kv = {k: int(v) for k, v in program.kv.items() if k != "dtype"}
        layers, heads, page = kv["layers"], kv["kv_heads"], kv["page_tokens"]
        count = layers * sequences * heads * pages_each
        order = np.random.default_rng(seed).permutation(count).astype(np.int32)
        self.table = order.reshape(layers, sequences, heads, pages_each)
        self.lens = np.zeros((layers, sequences, heads), np.int32)
        nan = np.float32(np.nan)  # a slot that is read before it is written poisons the result
        self.k_pages = tvm.runtime.tensor(np.full((count, kv["key_size"], page), nan))
        self.v_pages = tvm.runtime.tensor(np.full((count, page, kv["value_size"]), nan))
        self.capacity = pages_each * page
        self.weights = [tvm.runtime.tensor(t.make()) for t in program.tensors]

    def step(self, tokens: Sequence[Sequence[int]], rows: Sequence[int] | None = None) -> np.ndarray:
        """Feed some tokens of each sequence; logits [R, V] of the chosen rows (default: all)."""
        counts = np.array([len(t) for t in tokens])
        flat = np.concatenate([np.asarray(t, np.int32) for t in tokens])
        start = self.lens[0, :, 0]
        assert (start + counts <= self.capacity).all()
        positions = np.concatenate([np.arange(s, s + n, dtype=np.int32) for s, n in zip(start, counts, strict=True)])
        cu = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        chosen = np.arange(len(flat), dtype=np.int32) if rows is None else np.asarray(rows, np.int32)
        arrays = [flat, positions, cu, chosen, self.lens, self.table]
        args = [tvm.runtime.tensor(np.ascontiguousarray(a)) for a in arrays]
        logits = self.step_fn(*args, self.k_pages, self.v_pages, *self.weights).numpy()
        self.lens += counts[None, :, None].astype(np.int32)
        return logits
