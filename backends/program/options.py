"""What shapes a step program, whatever the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fretsaw.backends.program.kv_storage import KvType
from fretsaw.ir.errors import UsageError

WeightType = Literal["f32", "f16", "bf16"]


@dataclass(frozen=True)
class ProgramOptions:
    """How to plan.

    Args:
        weights: Storage of matrices; arithmetic is f32 either way.
        chunk_tokens: Most tokens of one step; longer prompts go in chunks.
        page_tokens: Tokens in one page of the KV cache.
        kv: Storage of keys and values (kv_storage.py); arithmetic is f32 either way.

    Raises:
        UsageError: an unknown storage type, or sizes out of range.
    """

    weights: WeightType = "f32"
    chunk_tokens: int = 512
    page_tokens: int = 64
    kv: KvType = "f32"

    def __post_init__(self) -> None:
        if self.weights not in get_args(WeightType):
            raise UsageError(f"--weights must be one of {', '.join(get_args(WeightType))}, is {self.weights!r}")
        if self.kv not in get_args(KvType):
            raise UsageError(f"--kv must be one of {', '.join(get_args(KvType))}, is {self.kv!r}")
        if not 1 <= self.chunk_tokens <= 65536:
            raise UsageError(f"--chunk must be 1 to 65536 tokens, is {self.chunk_tokens}")
