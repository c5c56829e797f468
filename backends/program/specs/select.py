"""Kernel specs of selectors: which key blocks queries read (ir/ops/select*.py)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.backends.program.specs.base import Spec
from fretsaw.ir import Attr

Sizes = tuple[int, ...]
OPS = frozenset((
    "causal_blocks", "prompt_blocks", "earlier_blocks", "forced_blocks", "span_blocks", "elastic_blocks",
    "strided_blocks", "union_blocks", "pick_heads", "block_tokens", "compact_blocks", "pool_queries", "pool_keys",
    "block_scores", "band_scores", "antidiagonal_scores", "compressed_scores", "bound_scores", "halving_blocks",
    "line_scores", "line_blocks", "line_tokens", "line_block_scores", "flex_blocks", "flex_switch", "hash_scores",
    "sampled_blocks", "gate_queries", "gate_keys", "chunk_keys", "representative_keys", "softmax_blocks",
    "pool_heads", "select_top_k", "select_share", "select_top_p", "select_above",
))  # fmt: skip


@dataclass(frozen=True)
class SelectSpec(Spec):
    """One op. Inputs: ``lens``, ``cu`` (ops that read keys: ``k_pages``, ``table``, ``lens``, ``cu``) where the op has
    a cache, then its other operands; the scalar ``layer`` where it reads keys; its results.

    Args:
        op: Its name in the IR.
        operands, results: The sizes that are fixed, of each tensor.
        attrs: Its attributes but the layer, defaults filled in.
    """

    op: str
    operands: tuple[Sizes, ...]
    results: tuple[Sizes, ...]
    attrs: tuple[tuple[str, Attr], ...]
    kv: KvType = "f32"

    @property
    def name(self) -> str:
        parts = (self.operands, self.results, self.attrs, self.kv)
        return f"{self.op}_{hashlib.sha256(repr(parts).encode()).hexdigest()[:10]}"

    def whole(self, name: str) -> int:
        """An attribute that is an integer."""
        value = dict(self.attrs)[name]
        assert isinstance(value, int)
        return value

    def real(self, name: str) -> float:
        """An attribute that is a number."""
        value = dict(self.attrs)[name]
        assert isinstance(value, int | float)
        return float(value)

    def text(self, name: str) -> str:
        """An attribute that is a word."""
        return str(dict(self.attrs)[name])

    def counts(self, name: str) -> tuple[int, ...]:
        """An attribute that is a list of integers."""
        value = dict(self.attrs)[name]
        assert isinstance(value, tuple)
        return tuple(n for n in value if isinstance(n, int))

    @property
    def heads(self) -> int:
        """The second axis of the first result."""
        return self.results[0][0]
