"""Options of the tvm backend."""

from __future__ import annotations

from dataclasses import dataclass

from fretsaw.backends.program.options import ProgramOptions
from fretsaw.ir.errors import UsageError

CPUS = ("x86-64-v4", "x86-64-v3")  # best first: the order in which the runtime tries them


@dataclass(frozen=True)
class TvmOptions(ProgramOptions):
    """How to plan, and for what to generate code.

    Args:
        cpus: Instruction-set levels to build variants for.

    Raises:
        UsageError: an unknown CPU, or what the plan's options refuse.
    """

    cpus: tuple[str, ...] = CPUS

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [c for c in self.cpus if c not in CPUS]
        if unknown or not self.cpus:
            raise UsageError(f"--cpu must be one of {', '.join(CPUS)}, is {', '.join(unknown) or 'empty'}")
