"""Options of the tvm backend."""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.ir.errors import UsageError

CPUS = ("x86-64-v4", "x86-64-v3")  # best first: the order in which the runtime tries them


@dataclass(frozen=True)
class TvmOptions:
    """How to build.

    Args:
        cpus: Instruction-set levels to build variants for.
        chunk_tokens: Most tokens of one step; longer prompts go in chunks.
        page_tokens: Tokens in one page of the KV cache.

    Raises:
        UsageError: an unknown CPU, or sizes out of range.
    """

    cpus: tuple[str, ...] = CPUS
    chunk_tokens: int = 512
    page_tokens: int = 64

    def __post_init__(self) -> None:
        unknown = [c for c in self.cpus if c not in CPUS]
        if unknown or not self.cpus:
            raise UsageError(f"--cpu must be one of {', '.join(CPUS)}, is {', '.join(unknown) or 'empty'}")
        if not 1 <= self.chunk_tokens <= 65536:
            raise UsageError(f"--chunk must be 1 to 65536 tokens, is {self.chunk_tokens}")
