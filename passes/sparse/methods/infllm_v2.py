"""InfLLM-V2: blocks by a softmax over means of 32 keys every 16, one list for the heads that share keys.

    p = softmax(scale * q . mean(k[16 j : 16 j + 32]));  summed over the heads of a group
    score of a block: the largest p of the means that touch it
    row: init_blocks, the local window, then the best scores up to blocks

Blocks: 64 positions, as in the source. The source chooses per query token; here a query block takes the largest score
        of its rows: a variant, without which neighbouring rows would share no keys.
Dense:  blocks * 64 >= S; window >= S; dense_until >= S.
Limits: made for models trained with it (MiniCPM4); on others it is a guess.
Source: InfLLM-V2, arXiv:2509.24663; defaults of MiniCPM's sparse_config. Its code counts one local block more than its
        paper; so does this.
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
class InfLlmV2(Listed):
    """Args:
    blocks: Blocks that a row reads, forced ones included.
    init_blocks: First blocks that it always reads.
    window: Last tokens that it always reads.
    kernel: Keys of a mean.
    stride: Keys between the starts of two means.
    dense_until: Query blocks before this position read everything, in tokens.
    decode: Choose for decoding too.
    """

    method: Literal["infllm_v2"] = "infllm_v2"
    blocks: int = 64
    init_blocks: int = 1
    window: int = 2048
    kernel: int = 32
    stride: int = 16
    dense_until: int = 8192
    decode: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel % self.stride or BLOCK % self.stride:
            raise ValueError(f"stride divides kernel and {BLOCK}, {self.stride} does not")

    def lows(self) -> Mapping[str, float]:
        return {"blocks": 1, "init_blocks": 0, "window": 0, "kernel": 1, "stride": 1, "dense_until": 0}

    def exact_dense(self, tokens: int) -> bool:
        return max(self.blocks * BLOCK, self.window, self.dense_until) >= tokens


def emit(site: Site, options: InfLlmV2) -> Selection:
    """One list per group of heads."""
    groups = site.kv_heads
    scores = site.emit(
        "compressed_scores", site.kv, site.q, layer=site.layer, scale=site.scale, kv_heads=groups,
        kernel=options.kernel, stride=options.stride, decode=options.decode,
    )  # fmt: skip
    local = -(-options.window // BLOCK) + 1
    forced = site.forced(groups, sink=options.init_blocks, local=local, dense_until=options.dense_until)
    return Selection(site.emit("select_top_k", site.kv, scores, forced, k=options.blocks), decode=options.decode)


METHOD = Method("infllm_v2", InfLlmV2, emit, phase="both", scope="group")
