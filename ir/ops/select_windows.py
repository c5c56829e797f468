"""Scores of key blocks from a softmax over means of overlapping windows of keys (InfLLM-V2): ``f32[QB, K, KB]``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fretsaw.ir.kv import BLOCK
from fretsaw.ir.op import Array, AttrSpec, ShapeError, sizes
from fretsaw.ir.ops.cache import OF_LAYER
from fretsaw.ir.ops.select import Attrs, Types, arrays, blank, cache_of, check_cache, define_selector, number
from fretsaw.ir.ops.select_scores import DECODE, KEYS, SCALE, grouped_heads, keys_of, over_heads, real, scored


def _compressed(operands: Sequence[object], attrs: Attrs) -> Sequence[Array]:
    kv, (q,) = cache_of(operands), arrays(operands)
    groups, size, step = (number(attrs, name) for name in ("kv_heads", "kernel", "stride"))
    out = blank(kv, groups, fill=-np.inf)
    for block in scored(kv, attrs):
        keys = keys_of(kv, attrs, block.sequence)
        windows = [keys[j : j + size].mean(axis=0) for j in range(0, block.end - size + 1, step)]
        rows = q[block.tokens].astype(np.float64)
        for g in range(groups):
            mine = rows.reshape(len(rows), groups, -1, q.shape[2])[:, g]  # [rows, heads, E]
            own = np.array([w[g] for w in windows]).reshape(len(windows), q.shape[2])
            mass = [
                _mass(r, own[: _seen(int(p), size, step)], attrs) for r, p in zip(mine, block.positions, strict=True)
            ]
            for b in range(block.block + 1):
                low, high = touching(b, size, step)
                out[block.row, g, b] = max(m[low:high].max(initial=0) for m in mass)
    return [out]


def _seen(position: int, size: int, step: int) -> int:
    """How many windows end at or before a position."""
    return max(0, (position + 1 - size) // step + 1)


def touching(block: int, size: int, step: int) -> tuple[int, int]:
    """The windows ``[low, high)`` that have a position in a block."""
    return max(0, (block * BLOCK - size) // step + 1), ((block + 1) * BLOCK - 1) // step + 1


def _mass(rows: Array, windows: Array, attrs: Attrs) -> Array:
    """Softmax of the rows [heads, E] over the windows [n, E], added up over the heads."""
    if not len(windows):
        return np.zeros(0)
    logits = rows @ windows.T * real(attrs, "scale")
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    mass: Array = (weights / weights.sum(axis=1, keepdims=True)).sum(axis=0)
    return mass


def _compressed_shape(types: Types, attrs: Attrs) -> Types:
    check_cache(types)
    if number(attrs, "kernel", 1) % number(attrs, "stride", 1) or BLOCK % number(attrs, "stride", 1):
        what = f"stride {attrs['stride']} must divide kernel {attrs['kernel']} and {BLOCK}"
        raise ShapeError(what, attr="stride")
    grouped_heads(types[1], attrs)
    return over_heads(number(attrs, "kv_heads"))


def _compressed_flops(operands: Types, results: Types, attrs: Attrs) -> int:
    count, heads, size = sizes(operands[1])
    return heads * (2 * size + 6) * count * (count // number(attrs, "stride") + 1) // 2


define_selector(
    "compressed_scores", "kv q", shape=_compressed_shape, reference=_compressed, reads=OF_LAYER,
    flops=_compressed_flops,
    attrs={**KEYS, **SCALE, "kernel": AttrSpec(int, 32), "stride": AttrSpec(int, 16), **DECODE},
    doc="Softmax of a query over means of kernel keys every stride positions, of those that end before it; added up "
    "over the heads of a group; of the means that touch a block the maximum, and of the row's queries the maximum -> "
    "f32[QB, K, KB], 0 where a visible block has none, after the row's own block -inf.",
    example="compressed_scores(%kv, %q) {layer = 0, kv_heads = 3, scale = 0.125}",
)  # fmt: skip
