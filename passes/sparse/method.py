"""What a method of sparse attention is: its options, what it needs, and the ops that it puts in front of attention."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from fretsaw.ir import Value
from fretsaw.passes.sparse.options import Sparse
from fretsaw.passes.sparse.site import Site


@dataclass(frozen=True)
class Columns:
    """Single keys that rows read beside the blocks: the best columns of each head.

    Args:
        scores: f32[B, H, 64 KB], of all heads, the same whatever the options of a head are.
        counts: Per head; 0: none.
        first: So many first columns are among them in any case.
    """

    scores: Value
    counts: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class Far:
    """Blocks that are read at one distance from the query, in the rotary embedding, instead of where they are.

    Args:
        blocks: bool[QB, G, KB], G as of the mask; those that the mask holds too are read where they are.
        distance: In slots.
        freq: Frequencies of the rotary embedding [E/2].
        layout: half or interleaved.
    """

    blocks: Value
    distance: int
    freq: Value
    layout: str


@dataclass(frozen=True)
class Selection:
    """What a method chose for a layer.

    Args:
        mask: bool[QB, G, KB], G the heads or the groups of heads that share keys.
        sink, window: Per head, in tokens: spans that hold within the listed blocks; empty: none.
        decode: Lists and spans hold also for a sequence with one token in the step.
        columns: Keys beside those of the blocks; a method that has some does not choose for decoding.
        far: Or blocks beside them; the same.
    """

    mask: Value
    sink: tuple[int, ...] = ()
    window: tuple[int, ...] = ()
    decode: bool = False
    columns: Columns | None = None
    far: Far | None = None


@dataclass(frozen=True)
class Method:
    """One method.

    Args:
        options: Class of its options; their defaults are those of its source where that has some.
        emit: From a site and options to what it chose.
        phase: What it makes sparse by default: a prompt, decoding, or both.
        scope: Who shares a list: the rows of a query block in each ``head``, in a ``group`` of heads with the same
            keys, or in all heads of a ``layer``.
        causal_selection: Lists of a query block depend on no token after that block.
        fits: From a site and options to the reason why the method cannot serve it; empty where it can.
        reads_scores: It scores keys by products with queries, which know nothing of a soft cap.
        needs_pre_rope: It reads queries and keys before their rotary embedding.
        needs_calibration: A table made on calibration text says what each head does.
        needs_weights: It has weights of its own, trained for the model.
        random: It draws numbers, from a seed.
    """

    name: str
    options: type[Sparse]
    emit: Callable[[Site, Any], Selection]
    fits: Callable[[Site, Any], str] = field(default=lambda site, options: "")
    phase: Literal["prefill", "decode", "both"] = "prefill"
    scope: Literal["head", "group", "layer"] = "head"
    causal_selection: bool = True
    reads_scores: bool = True
    needs_pre_rope: bool = False
    needs_calibration: bool = False
    needs_weights: bool = False
    random: bool = False

    @property
    def doc(self) -> str:
        """The docstring of the method's module."""
        return (sys.modules[self.emit.__module__].__doc__ or "").strip()
