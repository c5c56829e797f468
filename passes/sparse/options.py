"""Options that methods of sparse attention share, and how ``method=NAME`` chooses the others.

Every method has a frozen dataclass of its own that derives from :class:`Sparse`; the pass starts from :class:`Sparse`
itself, and the option ``method`` says which class its other options belong to (``Varied`` in passes/kit/options.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, Protocol

from fretsaw.ir.errors import UsageError
from fretsaw.passes.kit.option_docs import Variant
from fretsaw.passes.kit.options import Plain

DENSE_UNTIL = 2048  # rows before that position read everything; a prompt that long gains under a fifth, see docs
COMMON = ("method", "layers", "dense_layers")


class Registered(Protocol):
    """What options have to know of a method."""

    @property
    def doc(self) -> str: ...

    @property
    def options(self) -> type[Sparse]: ...


CHOICES: dict[str, Registered] = {}  # filled by passes/sparse/methods, as is what is not built and why
REFUSED: dict[str, str] = {}


@dataclass(frozen=True)
class Sparse:
    """Options of every method.

    Args:
        method: Which blocks of keys a block of queries reads.
        layers: Attention layers that become sparse, counted from 0; empty: all of them.
        dense_layers: Layers that stay as they are.
    """

    method: str = ""
    layers: tuple[int, ...] = ()
    dense_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        both = sorted(set(self.layers) & set(self.dense_layers))
        if both:
            raise ValueError(f"layer {both[0]} is named in layers and in dense_layers")
        for name, low in self.lows().items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ValueError(f"{name} is at least {low}, not {value}")

    def lows(self) -> Mapping[str, float]:
        """Smallest values of numeric options."""
        return {
            f.name: 0 for f in fields(self) if isinstance(f.default, (int, float)) and not isinstance(f.default, bool)
        }

    def variant(self, given: Mapping[str, object]) -> Sparse:
        """The options of the method that ``given`` names.

        Raises:
            UsageError: no method is named, or none that exists.
        """
        name = given.get("method", self.method)
        if name == self.method and type(self) is not Sparse:
            return self
        if name in CHOICES:
            return CHOICES[str(name)].options()
        hint = f"methods: {', '.join(sorted(CHOICES))}"
        if not name:
            raise UsageError("sparse_attention needs a method: sparse_attention:method=NAME", hint=hint)
        if name in REFUSED:
            raise UsageError(f"the method {name} is not built: {REFUSED[str(name)]}", hint=hint)
        near = difflib.get_close_matches(str(name), CHOICES, 1)
        guess = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no method {name} of sparse attention", hint=guess + hint)

    def variants(self) -> Mapping[str, Variant]:
        """Every method by its name, while none is chosen."""
        return {} if self.method else {name: Variant(m.doc, m.options()) for name, m in CHOICES.items()}

    def chooser(self) -> str:
        return "method"

    def about(self) -> str:
        """The documentation of the method."""
        return CHOICES[self.method].doc if self.method else ""

    def whole_prompt(self) -> str:
        """Why a step has to hold a whole prompt; empty where it need not."""
        return ""

    def whole_layer(self) -> bool:
        """Whether all heads of a layer have to be its own."""
        return False

    def exact_dense(self, tokens: int) -> bool:
        """Whether every row of a sequence of ``tokens`` tokens reads all of its keys under these settings."""
        return False

    def decodes(self) -> bool:
        """Whether lists and spans hold for decoding too."""
        return bool(self.own().get("decode", False))

    def missing(self) -> str:
        """What the method cannot work without and was not given; empty where nothing is missing."""
        return ""

    def dense_at(self, layer: int, layers: int) -> str:
        """Why the method leaves ``layer`` of ``layers`` dense; empty where it does not."""
        return ""

    def parts(self, layer: int, heads: int) -> tuple[tuple[tuple[int, ...], Sparse], ...]:
        """Heads of a layer and the options that hold for them; every head is in one part.

        Raises:
            UsageError: the options name a head that the layer does not have.
        """
        return ((tuple(range(heads)), self),)

    def planned(self) -> tuple[int, ...]:
        """Layers that a plan names; empty where there is none."""
        return ()

    def own(self) -> dict[str, Plain]:
        """The options that are not the same for every method, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in COMMON}


@dataclass(frozen=True)
class Listed(Sparse):
    """A method that lists blocks row by row of query blocks.

    Args:
        dense_until: Query blocks whose last row stands before this position read everything, in tokens.
    """

    dense_until: int = DENSE_UNTIL

    def exact_dense(self, tokens: int) -> bool:
        return tokens <= self.dense_until


@dataclass(frozen=True)
class Shared(Listed):
    """A method that can share its lists among the heads that share keys.

    Args:
        share: One list per ``head``, or one per ``group`` of heads with the same keys.
    """

    share: Literal["head", "group"] = "head"


@dataclass(frozen=True)
class LastQueries(Listed):
    """A method that scores with the last queries of a prompt.

    Args:
        per_chunk: Take the last queries of every step instead, so that prompts may come in chunks. Lists then depend
            on how a prompt was cut.
    """

    per_chunk: bool = False

    def whole_prompt(self) -> str:
        return "" if self.per_chunk else "it scores blocks with the last queries of the prompt"
