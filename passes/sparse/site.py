"""One attention node that is to become sparse: its facts, and the ops that methods put in front of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fretsaw.ir import Attr, Graph, Node, Value
from fretsaw.passes.kit.edit import Edit


@dataclass(frozen=True)
class Site:
    """A ``cached_attention`` node.

    Args:
        edit: Collects what is inserted.
        node: The attention.
        append: The ``kv_append`` of its layer, which stands before it.
    """

    edit: Edit
    graph: Graph
    node: Node
    append: Node

    @property
    def kv(self) -> Value:
        return self.node["kv"]

    @property
    def q(self) -> Value:
        """Queries [T, H, E], after their rotary embedding."""
        return self.node["q"]

    @property
    def layer(self) -> int:
        return self.node.int_attr("layer")

    @property
    def heads(self) -> int:
        return _int(self.q.tensor.shape[1])

    @property
    def kv_heads(self) -> int:
        return _int(self.append["k"].tensor.shape[1])

    @property
    def head_size(self) -> int:
        return _int(self.q.tensor.shape[2])

    @property
    def scale(self) -> float:
        return self.node.float_attr("scale")

    def groups(self, share: str) -> int:
        """Lists per query block where ``share`` is head or group."""
        return self.heads if share == "head" else self.kv_heads

    def emit(self, op: str, *operands: Value, **attrs: Attr) -> Value:
        """Insert a node before the attention; its first result."""
        return self.emit_all(op, *operands, **attrs)[0]

    def emit_all(self, op: str, *operands: Value, **attrs: Attr) -> tuple[Value, ...]:
        """Insert a node before the attention; its results."""
        name = f"{self.node.out.name}.{op}"
        loc = self.node.loc
        return self.edit.insert_node(op, operands, attrs, before=self.node, name=name, loc=loc).results

    def const(self, name: str, data: np.ndarray) -> Value:
        """A constant of the layer."""
        return self.edit.const(f"{self.node.out.name}.{name}", data)

    def forced(self, groups: int, *, sink: int = 0, local: int = 0, dense_until: int = 0, last_rows: int = 0) -> Value:
        """Blocks that stay whatever the scores say, bool[QB, groups, KB]; ``sink`` and ``local`` in blocks."""
        attrs: dict[str, Attr] = {"sink": sink, "local": local, "dense_until": dense_until, "last_rows": last_rows}
        return self.emit("forced_blocks", self.kv, groups=groups, **{k: v for k, v in attrs.items() if v})

    def everything(self, groups: int) -> Value:
        """All blocks that rows may see, bool[QB, groups, KB]."""
        return self.emit("causal_blocks", self.kv, groups=groups)

    def pooled_keys(self, kind: str) -> Value:
        """Mean, largest or smallest key of each block, f32[B, K, KB, E]."""
        kv_heads, size = self.kv_heads, self.head_size
        return self.emit("pool_keys", self.kv, layer=self.layer, kv_heads=kv_heads, size=size, kind=kind)

    def line_scores(self, rows: int) -> tuple[Value, Value]:
        """Softmax of the last ``rows`` queries of each sequence, summed by key and by distance, f32[B, H, 64 KB]."""
        found = self.emit_all(
            "line_scores", self.kv, self.q, layer=self.layer, scale=self.scale, kv_heads=self.kv_heads, rows=rows
        )
        return found[0], found[1]

    def shared(self, scores: Value, groups: int, kind: str = "sum") -> Value:
        """Scores f32[QB, H, KB] of heads that share a list put together, f32[QB, groups, KB]."""
        return scores if groups == self.heads else self.emit("pool_heads", scores, groups=groups, kind=kind)


def _int(dim: object) -> int:
    assert isinstance(dim, int)
    return dim
