"""Options of the tvm backend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from fretsaw.backends.tvm.kv_storage import KvType
from fretsaw.ir.errors import UsageError

WeightType = Literal["f32", "f16", "bf16"]
CPUS = ("x86-64-v4", "x86-64-v3")  # best first: the order in which the runtime tries them


@dataclass(frozen=True)
class TvmOptions:
    """How to build.

    Args:
        weights: Storage of matrices; arithmetic is f32 either way.
        cpus: Instruction-set levels to build variants for.
        chunk_tokens: Most tokens of one step; longer prompts go in chunks.
        page_tokens: Tokens in one page of the KV cache.
        kv: Storage of keys and values (kv_storage.py); arithmetic is f32 either way.

    Raises:
        UsageError: an unknown storage type or CPU, or sizes out of range.
    """

    weights: WeightType = "f32"
    cpus: tuple[str, ...] = CPUS
    chunk_tokens: int = 512
    page_tokens: int = 64
    kv: KvType = "f32"

    def __post_init__(self) -> None:
        if self.weights not in get_args(WeightType):
            raise UsageError(f"--weights must be one of {', '.join(get_args(WeightType))}, is {self.weights!r}")
        if self.kv not in get_args(KvType):
            raise UsageError(f"--kv must be one of {', '.join(get_args(KvType))}, is {self.kv!r}")
        unknown = [c for c in self.cpus if c not in CPUS]
        if unknown or not self.cpus:
            raise UsageError(f"--cpu must be one of {', '.join(CPUS)}, is {', '.join(unknown) or 'empty'}")
        if not 1 <= self.chunk_tokens <= 65536:
            raise UsageError(f"--chunk must be 1 to 65536 tokens, is {self.chunk_tokens}")
