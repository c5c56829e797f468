"""S2-Attention: local blocks and strided blocks whose offset differs from head to head.

    query block i sees key block j <= i  <=>  i - j < local  or  (j + k * step + offset) % stride == 0
    k the head of keys, step = max(1, stride // heads of keys): the heads together cover the whole context

Blocks: 64 positions, as in the source.
Dense:  stride = 1; local * 64 >= S; all heads in dense_heads.
Limits: for models trained with the pattern (Phi-3-small is); a head reaches only every stride-th block.
Source: S2-Attention, arXiv:2407.17678; the pattern as in linxihui/dkernel (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.kv import BLOCK
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Listed
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class S2(Listed):
    """Args:
    local: Last blocks that every row sees, its own included.
    stride: One of so many blocks is seen however far away.
    offset: Shifts the strided blocks of all heads.
    dense_heads: So many of the last heads of keys see everything.
    same: All heads have the offsets of the first.
    decode: Hold the lists for decoding too.
    """

    method: Literal["s2"] = "s2"
    local: int = 4
    stride: int = 4
    offset: int = 0
    dense_heads: int = 0
    same: bool = False
    decode: bool = False

    def lows(self) -> Mapping[str, float]:
        return {"local": 1, "stride": 1, "offset": 0, "dense_heads": 0, "dense_until": 0}

    def exact_dense(self, tokens: int) -> bool:
        return self.stride == 1 or max(self.local * BLOCK, self.dense_until) >= tokens


def emit(site: Site, options: S2) -> Selection:
    """A list per head of keys."""
    heads = site.kv_heads
    step = max(1, options.stride // heads)
    offsets = tuple(options.offset + (0 if options.same else k * step) for k in range(heads))
    attrs = {"local": options.local, "stride": options.stride, "dense_until": options.dense_until}
    mask = site.emit("strided_blocks", site.kv, offsets=offsets, **attrs)
    if options.dense_heads:
        choice = tuple(int(k >= heads - options.dense_heads) for k in range(heads))
        mask = site.emit("pick_heads", mask, site.everything(heads), choice=choice)
    return Selection(mask, decode=options.decode)


METHOD = Method("s2", S2, emit, scope="group", reads_scores=False)
