"""Queries, keys and values of one attention layer on one text, and what a head may be told to read of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fretsaw.ir import Node, ReferenceKvCache
from fretsaw.ir.attrs import ints_of
from fretsaw.ir.kv import BLOCK
from fretsaw.ir.op import Attr
from fretsaw.ir.ops.block_attention import head_groups
from fretsaw.ir.ops.gather_attention import turned
from fretsaw.passes.kit.inspector import Look

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Layer:
    """One attention layer on a text of S tokens that is a step of its own.

    Args:
        number: Layer of the cache.
        q: Queries [H, S, E].
        k, v: Keys [K, S, E] and values [K, S, Ev] of the heads that H / K query heads share.
        scale: Of the products.
        softcap: 0: none.
        sinks: A logit per head without a value [H], or None.
    """

    number: int
    q: Array
    k: Array
    v: Array
    scale: float
    softcap: float = 0.0
    sinks: Array | None = None

    @staticmethod
    def of(node: Node, look: Look) -> Layer:
        """The layer of an attention node over the cache, whose step holds one text from its start."""
        kv, q = look(node["kv"]), look(node["q"])
        assert isinstance(kv, ReferenceKvCache) and isinstance(q, np.ndarray)
        sinks = node.get("sinks")
        k, v = kv.read(node.int_attr("layer"), 0)
        sink = None if sinks is None else np.asarray(look(sinks))
        q, k, v = (np.ascontiguousarray(a.transpose(1, 0, 2)) for a in (q, k, v))
        return Layer(node.int_attr("layer"), q, k, v, node.float_attr("scale"), node.float_attr("softcap"), sink)

    @property
    def heads(self) -> int:
        return int(self.q.shape[0])

    @property
    def tokens(self) -> int:
        return int(self.q.shape[1])

    @property
    def blocks(self) -> int:
        return -(-self.tokens // BLOCK)

    def key_head(self, head: int) -> int:
        """Head whose keys query head ``head`` reads."""
        return head * int(self.k.shape[0]) // self.heads

    def logits(self, head: int, rows: slice) -> Array:
        """Logits of the rows of one head over keys up to the last row, [R, rows.stop], -inf where the mask hides."""
        keys = self.k[self.key_head(head), : rows.stop]
        s: Array = (self.q[head, rows] @ keys.T) * self.q.dtype.type(self.scale)
        if self.softcap:
            s = np.tanh(s / s.dtype.type(self.softcap)) * s.dtype.type(self.softcap)
        diagonal = s[:, rows.start :]
        np.copyto(diagonal, -np.inf, where=np.arange(diagonal.shape[1])[None, :] > np.arange(s.shape[0])[:, None])
        return s

    def softmax(self, head: int, s: Array) -> Array:
        """Weights of logits [R, n], in their place; sums are below one where a sink takes mass."""
        top = s.max(axis=1)
        if self.sinks is not None:
            top = np.maximum(top, self.sinks[head])
        s -= top[:, None]
        e: Array = np.exp(s, out=s)
        total = e.sum(axis=1)
        if self.sinks is not None:
            total += np.exp(self.sinks[head] - top)
        e /= total[:, None]
        return e

    def weights(self, head: int, rows: slice) -> Array:
        """Softmax of the rows of one head over all keys up to the last row, [R, rows.stop]."""
        return self.softmax(head, self.logits(head, rows))


@dataclass(frozen=True, eq=False)
class Turn:
    """Keys that are read at one distance from the query, whatever theirs is.

    Args:
        distance: In positions.
        freq: Frequencies of the rotary embedding [E/2].
        layout: half or interleaved.
    """

    distance: int
    freq: Array
    layout: str

    def logits(self, layer: Layer, head: int, rows: slice, keys: Array) -> Array:
        """Logits of the rows of one head over keys at positions ``keys``, [R, n], -inf after the row's own."""
        at = np.arange(rows.start, rows.stop)
        q = turned(layer.q[head, rows], self.distance - at, self.freq, self.layout)
        k = turned(layer.k[layer.key_head(head), keys], -keys.astype(np.int64), self.freq, self.layout)
        s: Array = np.where(keys[None, :] <= at[:, None], q @ k.T * q.dtype.type(layer.scale), -np.inf)
        return s


@dataclass(frozen=True, eq=False)
class Reads:
    """What every head of a layer reads.

    Args:
        blocks: Key blocks per query block, bool[H, nQ, nK].
        sink, window: Per head, in tokens: spans that hold within the blocks; window 0: none.
        ids, cnt: Keys beside the blocks, positions [nQ, G, N] of which cnt [nQ, G] count; None: none.
        turn: How these are read, where not at their positions.
    """

    blocks: Array
    sink: tuple[int, ...]
    window: tuple[int, ...]
    ids: Array | None = None
    cnt: Array | None = None
    turn: Turn | None = None

    @staticmethod
    def of(
        idx: Array, cnt: Array, heads: int, attrs: Mapping[str, Attr], tokens: tuple[Array, Array] | None = None,
        turn: Turn | None = None,
    ) -> Reads:  # fmt: skip
        """From the lists of a text that is a step of its own, idx [QB, G, KB] and cnt [QB, G], and those of single
        keys beside them."""
        width = int(idx.shape[2])
        there = np.zeros((idx.shape[1], width, width + 1), bool)  # one column more, for what lists leave out
        places = np.where(np.arange(width)[None, None, :] < cnt[:width, :, None], idx[:width], width)
        np.put_along_axis(there, places.transpose(1, 0, 2).astype(np.int64), True, axis=2)
        spans = []
        for name in ("sink", "window"):
            spans.append(ints_of(attrs, name) or (0,) * heads)
        ids, count = (None, None) if tokens is None else tokens
        return Reads(there[head_groups(heads, idx.shape[1]), :, :width], spans[0], spans[1], ids, count, turn)

    def tokens(self, head: int, block: int) -> Array:
        """Positions of the single keys that a query block reads, ascending."""
        if self.ids is None or self.cnt is None:
            return np.zeros(0, np.int32)
        group = head_groups(self.blocks.shape[0], self.ids.shape[1])[head]
        found: Array = self.ids[block, group, : self.cnt[block, group]]
        return found

    @property
    def listed(self) -> Array:
        """Keys read by each head, in blocks [H]."""
        count: Array = self.blocks.sum(axis=(1, 2)).astype(np.float64)
        if self.cnt is not None:
            each = self.cnt[: self.blocks.shape[1]].sum(axis=0) / BLOCK
            count += each[head_groups(self.blocks.shape[0], self.cnt.shape[1])]
        return count

    @property
    def touched(self) -> Array:
        """Key blocks of which something is read, bool[H, nQ, nK]."""
        out = self.blocks.copy()
        for head in range(out.shape[0]):
            for block in range(out.shape[1]):
                out[head, block, self.tokens(head, block) // BLOCK] = True
        return out


def causal_blocks(count: int) -> int:
    """Blocks at and below the diagonal."""
    return count * (count + 1) // 2
