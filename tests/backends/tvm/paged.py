"""Drive a compiled step program from Python with a paged cache: the runtime's contract in forty lines of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from fretsaw.backends.program.kv_storage import KvType, store_rows
from fretsaw.backends.program.serialize import to_bytes
from fretsaw.backends.tvm.build import Program
from fretsaw.ir.kv import BLOCK
from tests.backends.program.walk import Walker


def _poisoned(program: Program, count: int) -> list[np.ndarray]:
    """Pages in which every slot is NaN: one that is read before it is written poisons the result."""
    storage = next(kv for kv in get_args(KvType) if kv == program.kv["dtype"])
    sizes = (int(program.kv["key_size"]), int(program.kv["value_size"]))
    page = int(program.kv["page_tokens"])
    rows = [np.full((page, size), np.nan, np.float32) for size in sizes]
    pages = [store_rows(x, storage, transpose=i == 0) for i, x in enumerate(rows)]
    return [np.repeat(p[None], count, 0) for p in pages]


class PagedRunner:
    """One program, ``sequences`` sequences, pages handed out in a scrambled order so that mixing them up shows."""

    def __init__(self, program: Program, variant: str, sequences: int = 1, pages_each: int = 8, seed: int = 0) -> None:
        code, _ = program.variants[variant]
        self.walker = Walker(to_bytes(program.steps), code, [t.make() for t in program.tensors])
        self.entry = "step"
        kv = {k: int(v) for k, v in program.kv.items() if k not in ("dtype", "key_bounds")}
        layers, heads, page = kv["layers"], kv["kv_heads"], kv["page_tokens"]
        count = layers * sequences * heads * pages_each
        order = np.random.default_rng(seed).permutation(count).astype(np.int32)
        self.table = order.reshape(layers, sequences, heads, pages_each)
        self.lens = np.zeros((layers, sequences, heads), np.int32)
        self.k_pages, self.v_pages = _poisoned(program, count)
        bounds = np.full((count, 2 * kv["key_size"]), np.nan, np.float32)
        self.beside = {"key_bounds": bounds} if program.kv.get("key_bounds") else {}
        self.capacity = pages_each * page

    def use_entry(self, name: str) -> None:
        """Run the following steps by another function of the program."""
        self.entry = name

    def step(self, tokens: Sequence[Sequence[int]], rows: Sequence[int] | None = None) -> np.ndarray:
        """Feed some tokens of each sequence; logits [R, V] of the chosen rows (default: all)."""
        counts = np.array([len(t) for t in tokens])
        flat = np.concatenate([np.asarray(t, np.int32) for t in tokens])
        start = self.lens[0, :, 0]
        assert (start + counts <= self.capacity).all()
        positions = np.concatenate([np.arange(s, s + n, dtype=np.int32) for s, n in zip(start, counts, strict=True)])
        cu = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        chosen = np.arange(len(flat), dtype=np.int32) if rows is None else np.asarray(rows, np.int32)
        sizes = {"T": len(flat), "B": len(tokens), "R": len(chosen), "KB": self.table.shape[-1]}
        sizes["QB"] = len(flat) // BLOCK + 2 * len(tokens)
        cache = {"cu": cu, "lens": self.lens, "table": self.table, "k_pages": self.k_pages, "v_pages": self.v_pages}
        inputs = {"tokens": flat, "positions": positions, "rows": chosen}
        logits: np.ndarray = self.walker.run(self.entry, sizes, inputs, {**cache, **self.beside})
        self.lens += counts[None, :, None].astype(np.int32)
        return logits
