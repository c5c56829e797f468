"""What others may know of an op without knowing its name: handles, phases, rows, kind. Declared with the op.

Passes, checks, backends and tools ask for these instead of keeping lists of names, so an op that is added is picked up
wherever its traits say that it belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fretsaw.ir.op import Attr

PHASES = ("captured", "canonical", "fused", "packed")
EVERYWHERE = 2**31 - 1  # more tokens than a sequence has

# What an op is made for, where names would say no more:
#   layout      moves or converts every element of its operands, choosing none by data
#   index       picks or writes elements at places that other elements name
#   source      makes a tensor from attributes alone
#   product, norm, attention, expert: the parts of a model that people look for
#   selector    part of choosing keys for sparse attention
Kind = Literal["arithmetic", "layout", "index", "source", "product", "norm", "attention", "expert", "selector"]

# How an op treats the axes in front: ``each`` maps every row (the last axis of its first operand) alone and keeps the
# axes before it; ``axis`` works along the attribute ``axis`` and treats all others alike; empty: neither is promised.
Rows = Literal["", "each", "axis"]


@dataclass(frozen=True)
class Access:
    """A handle, or a part of it, that an op reads or writes. Parts do not overlap.

    Args:
        slot: The operand.
        part: Name of the part, or empty.
        by: Attribute whose value tells parts of one name apart, such as the layer; empty where there is one.
    """

    slot: str
    part: str = ""
    by: str = ""


@dataclass(frozen=True)
class Legal:
    """The phases in which an op may stand.

    Args:
        first, last: The range of phases, ends included.
        why: Why it may stand in no other; completes "OP is not legal in phase P: ".
        hint: What to do about one that stands elsewhere.
    """

    first: str = PHASES[0]
    last: str = PHASES[-1]
    why: str = ""
    hint: str = ""

    def __post_init__(self) -> None:
        if PHASES.index(self.first) > PHASES.index(self.last):
            raise ValueError(f"phase {self.first} comes after {self.last}")

    def __contains__(self, phase: str) -> bool:
        return phase in PHASES[PHASES.index(self.first) : PHASES.index(self.last) + 1]


@dataclass(frozen=True)
class Full:
    """Rows of query blocks for which a mask holds every key up to the row's own.

    Args:
        until: Those whose query block ends at this position or before, in tokens.
        prompts: Those of sequences with more than one token in the step.
        single: Those of sequences with one token in it.
    """

    until: int = 0
    prompts: bool = False
    single: bool = False

    def __and__(self, other: Full) -> Full:
        return Full(min(self.until, other.until), self.prompts and other.prompts, self.single and other.single)

    def __or__(self, other: Full) -> Full:
        return Full(max(self.until, other.until), self.prompts or other.prompts, self.single or other.single)


ALL_ROWS = Full(EVERYWHERE, True, True)

# From an op's attributes, defaults included, and what its operands promise, by slot, to what its mask promises.
FullRows = Callable[[Mapping[str, "Attr"], Mapping[str, Full]], Full]


@dataclass(frozen=True)
class Probe:
    """What an op leaves out in steps in which each sequence decodes one token: how checks see that it did something.

    Args:
        when: Attribute that says that the op leaves anything out in such a step.
        measure: From operands as the reference gets them, and attributes, to shares by name; 1: nothing is left out.
        share: The one of them that tells whether anything was.
        least: Those whose least value is told beside their mean.
        idle: What is said where nothing was left out; completes "... of N tokens when it decodes".
    """

    when: str
    measure: Callable[[Sequence[object], Mapping[str, Attr]], Mapping[str, float]]
    share: str
    least: tuple[str, ...]
    idle: str


def promises_nothing(attrs: Mapping[str, Attr], masks: Mapping[str, Full]) -> Full:
    """No row is known to be full."""
    return Full()
