"""What a search chooses from: candidates of every space whose plan is found by the integer program of choose.py.

All leave the rows before ``dense_until`` alone, need no training and no whole prompt. Spans are those in whole blocks:
exact ones would hold for the rows before ``dense_until`` too.
"""

from __future__ import annotations

from fretsaw.passes.sparse.methods.dhsa import Dhsa
from fretsaw.passes.sparse.methods.infllm_v2 import InfLlmV2
from fretsaw.passes.sparse.methods.mean_pool import MeanPool
from fretsaw.passes.sparse.methods.moa import MoA
from fretsaw.passes.sparse.methods.prism import Prism
from fretsaw.passes.sparse.methods.xattention import XAttention
from fretsaw.passes.sparse.options import Sparse

SPANS = (128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)  # tokens before a row
THRESHOLDS = (0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995)  # of the mass
DENSITIES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65)  # of the visible blocks
BLOCKS = (8, 12, 16, 20, 24, 32, 40, 48, 64)  # of a row, forced ones included
WINDOW = 256  # tokens that InfLLM-V2 always reads: its own, 2048, would leave little to choose
STRIDE = 16  # of XAttention: half the cost of choosing of its default


def default_candidates(dense_until: int) -> tuple[Sparse, ...]:
    """Settings from nothing to nearly everything, of each of the three methods."""
    some = (*spans(dense_until, SPANS[1:]), *masses(dense_until, (0.8, 0.9, 0.95, 0.98, 0.99)))
    return (*some, *shares(dense_until, (0.1, 0.15, 0.25, 0.4)))


def space_candidates(space: str, dense_until: int) -> tuple[Sparse, ...]:
    """Candidates of ``mixed``, or of one method: ``spans``, ``xattention``, ``mean_pool``, ``dhsa``, ``prism`` or
    ``infllm_v2``.

    Raises:
        KeyError: the space is none of them.
    """
    makes = {
        "mixed": default_candidates, "spans": spans, "xattention": masses, "mean_pool": shares, "dhsa": form_a,
        "prism": bands, "infllm_v2": group_blocks,
    }  # fmt: skip
    return makes[space](dense_until)


def spans(dense_until: int, alphas: tuple[int, ...] = SPANS) -> tuple[Sparse, ...]:
    """A sink block and the last ``alpha`` tokens; they cost nothing to choose."""
    return tuple(MoA(alpha=a, beta=0.0, dense_until=dense_until) for a in alphas)


def masses(dense_until: int, thresholds: tuple[float, ...] = THRESHOLDS) -> tuple[Sparse, ...]:
    """As many blocks as hold a share of the mass by antidiagonal sums."""
    return tuple(XAttention(threshold=t, stride=STRIDE, dense_until=dense_until) for t in thresholds)


def shares(dense_until: int, densities: tuple[float, ...] = DENSITIES) -> tuple[Sparse, ...]:
    """A share of the visible blocks, by means of queries and keys."""
    return tuple(MeanPool(density=d, dense_until=dense_until) for d in densities)


def form_a(dense_until: int) -> tuple[Sparse, ...]:
    """A share of the visible blocks, with nothing forced but the first and the row's own."""
    return tuple(Dhsa(density=d, dense_until=dense_until) for d in DENSITIES)


def bands(dense_until: int) -> tuple[Sparse, ...]:
    """As many blocks as hold a share of the mass in either band of means."""
    return tuple(Prism(p=p, dense_until=dense_until) for p in THRESHOLDS)


def group_blocks(dense_until: int) -> tuple[Sparse, ...]:
    """A number of blocks by means of 32 keys, one list for the heads that share keys."""
    return tuple(InfLlmV2(blocks=b, window=WINDOW, dense_until=dense_until) for b in BLOCKS)
