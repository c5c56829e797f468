"""SeerAttention: a learned gate guesses the attention mass of blocks; blocks above a threshold are read.

    qp = Wq[h] . mean(q of a block),  kp = Wk . (max, min, mean)(k of a block), both before the rotary embedding
    gate = softmax over blocks of rope(qp) . rope(kp) / sqrt(G), at the positions where blocks begin;  gate > threshold

Blocks: 64 positions, as in the source. Queries and keys are turned back from their rotary embedding by their positions,
        so that the cache serves, and prompts may come in chunks. The diagonal and the first block are forced, without
        which a row may read nothing; with ``tail``, the last two query blocks are dense, as in the source.
Dense:  threshold <= 0, decided before any score.
Limits: needs gate weights: published ones (``self_attn.attn_gate.mask_linear_q.weight`` [H, E, G] and
        ``mask_linear_k.weight`` [Hkv, 3 E, G] of every layer; without the first, [H, 3 E, E]) or ones trained here.
        Thresholds do not carry over to other lengths: masses shrink with the number of blocks.
Source: SeerAttention, arXiv:2410.13276; names and layout of its gate as in microsoft/SeerAttention (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from fretsaw.ir import Attr, FileData, Value
from fretsaw.ir.errors import CaptureError, UsageError
from fretsaw.ir.kv import BLOCK
from fretsaw.ir.safetensors import read_safetensors
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.options import Listed
from fretsaw.passes.sparse.rotary_parts import BeforeRope, before_rope, lacks_rope
from fretsaw.passes.sparse.site import Site

GATE = "self_attn.attn_gate.mask_linear_"


@dataclass(frozen=True)
class SeerAttention(Listed):
    """Args:
    gate: File with the weights of the gate, safetensors.
    threshold: Mass from which on a block is read, 0 to 1.
    tail: Leave the last two query blocks of a prompt dense.
    per_chunk: Take the last two of every step, so that prompts may come in chunks.
    """

    method: Literal["seer_attention"] = "seer_attention"
    gate: str = ""
    threshold: float = 2e-3
    tail: bool = True
    per_chunk: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate:
            self.tensors  # noqa: B018  a mistake in the file shows before a checkpoint is read

    def missing(self) -> str:
        return "" if self.gate else "gate=FILE"

    def lows(self) -> Mapping[str, float]:
        return {"dense_until": 0}

    def whole_prompt(self) -> str:
        return "the last blocks of the prompt see everything" if self.tail and not self.per_chunk else ""

    def exact_dense(self, tokens: int) -> bool:
        return self.threshold <= 0 or tokens <= max(2 * BLOCK, self.dense_until)

    @cached_property
    def tensors(self) -> dict[str, FileData]:
        """The gate's tensors by name.

        Raises:
            UsageError: it is no safetensors file, or has no gate.
        """
        try:
            found = read_safetensors(Path(self.gate))
        except CaptureError as error:
            raise UsageError(f"cannot read the gate: {error.what}", where=self.gate, hint=error.hint) from None
        if not any(GATE in name for name in found):
            raise UsageError(f"the file has no tensor {GATE}k.weight", where=self.gate)
        return found

    def weight(self, site: Site, which: str) -> Value | None:
        """The weight ``q`` or ``k`` of a layer as a constant f32; None where there is none."""
        suffix = f"layers.{site.layer}.{GATE}{which}.weight"
        data = next((d for name, d in self.tensors.items() if f".{name}".endswith(f".{suffix}")), None)
        return None if data is None else site.const(f"gate_{which}", np.asarray(data.load(), np.float32))


def fits(site: Site, options: SeerAttention) -> str:
    """Why the gate does not fit a site; empty where it does."""
    reason = lacks_rope(site, options)
    if reason or options.threshold <= 0:
        return reason
    size, heads, kv_heads = site.head_size, site.heads, site.kv_heads
    shapes = {
        which: next((d.shape for n, d in options.tensors.items() if f".{n}".endswith(
            f".layers.{site.layer}.{GATE}{which}.weight")), None)
        for which in ("q", "k")
    }  # fmt: skip
    if shapes["k"] is None:
        return f"the gate has no weight layers.{site.layer}.{GATE}k.weight"
    wide = shapes["q"][2] if shapes["q"] is not None and len(shapes["q"]) == 3 else size
    want_q, want_k = (heads, size, size), (kv_heads if shapes["q"] is not None else heads, 3 * size, size)
    if wide != size or shapes["k"] != want_k or shapes["q"] not in (None, want_q):
        return f"the gate has weights q {shapes['q']}, k {shapes['k']}; this layer needs {want_q} and {want_k}"
    return ""


def emit(site: Site, options: SeerAttention) -> Selection:
    """The gate of a layer."""
    heads = site.heads
    if options.threshold <= 0:
        return Selection(site.everything(heads))
    parts, gate_q, gate_k = before_rope(site), options.weight(site, "q"), options.weight(site, "k")
    assert isinstance(parts, BeforeRope) and gate_k is not None
    weights = [] if gate_q is None else [gate_q]
    rope: dict[str, Attr] = {"layout": parts.layout, "rope_scale": parts.scale}
    queries = site.emit("gate_queries", site.kv, site.q, parts.freq, *weights, **rope)
    keys = site.emit("gate_keys", site.kv, gate_k, parts.freq, layer=site.layer, kv_heads=site.kv_heads, **rope)
    scores = site.emit("block_scores", site.kv, queries, keys, scale=float(site.head_size) ** -0.5)
    masses = site.emit("softmax_blocks", scores)
    tail = BLOCK + 1 if options.tail else 0  # so many rows lie in the last two blocks, and in no third one
    forced = site.forced(heads, sink=1, local=1, dense_until=options.dense_until, last_rows=tail)
    return Selection(site.emit("select_above", site.kv, masses, forced, threshold=options.threshold))


METHOD = Method(
    "seer_attention", SeerAttention, emit, fits=fits, causal_selection=False, needs_pre_rope=True, needs_weights=True
)
