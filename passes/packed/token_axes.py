"""Analysis: is a value per token, per sequence, or shared, and where do tokens lie in its shape?

[B, S, ...] and [B*S, ...]   per token      becomes [T, ...]
[B, ...] without S           per sequence   stays (programs whose sequences are whole; a decoder has none)
no B, no S                   shared         stays
anything else                refused: [S], [B, D, S], [B, S, S], ...
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fretsaw.ir import Dim, DimLike, Node, Shape, TensorType, Value
from fretsaw.ir.errors import PassError


class Lead(Enum):
    """How a value begins."""

    NONE = 0  # no token axis
    FLAT = 1  # [B*S, ...]
    BATCH = 2  # [B, S, ...]
    SEQUENCE = 3  # [B, ...]

    @property
    def axes(self) -> int:
        """How many leading axes it is."""
        return 1 if self is Lead.SEQUENCE else int(self.value)


def mixes(node: Node, why: str, *, segments: bool = False) -> PassError:
    """The refusal to pack ``node`` of a decoder, or of a program of whole sequences (``segments``)."""
    allowed = "only attention and pooling" if segments else "only causal attention"
    return PassError(
        f"cannot pack this graph: {node.op} mixes tokens: {why}",
        where="   ".join(
            filter(None, [f"%{node.results[0].name}" if node.results else "", node.loc.module, node.loc.source])
        ),
        when=f"pass {'pack_segments' if segments else 'pack_tokens'}",
        hint=f"{allowed} may look at other tokens; rewrite this node, or stop at phase fused",
    )


@dataclass(frozen=True)
class TokenAxes:
    """The dims of a padded batch, and the dim T that replaces them.

    Args:
        segments: Sequences are whole, so that values per sequence [B, ...] exist.
    """

    batch: DimLike
    steps: DimLike
    tokens: DimLike
    segments: bool = False

    def mixes(self, node: Node, why: str) -> PassError:
        """The refusal to pack ``node``."""
        return mixes(node, why, segments=self.segments)

    def lead(self, value: Value) -> Lead:
        if not isinstance(value.type, TensorType):
            return Lead.NONE
        shape = value.type.shape
        if shape[:2] == (self.batch, self.steps):
            return Lead.BATCH
        if shape[:1] == (self.batch * self.steps,):
            return Lead.FLAT
        return Lead.SEQUENCE if self._per_sequence(shape) else Lead.NONE

    def _per_sequence(self, shape: Shape) -> bool:
        first = self.segments and isinstance(self.batch, Dim) and shape[:1] == (self.batch,)
        return first and not self.holds_tokens(Value("", TensorType("f32", shape[1:])))

    def holds_tokens(self, value: Value) -> bool:
        """Some axis of the value depends on the batch or its length."""
        symbols = {n for d in (self.batch, self.steps) if isinstance(d, Dim) for n in d.symbols}
        shape = value.type.shape if isinstance(value.type, TensorType) else ()
        return any(isinstance(d, Dim) and d.symbols & symbols for d in shape)

    def packed(self, shape: Shape, node: Node) -> Shape:
        """``shape`` with the token axes replaced by T; that of a value per sequence stays.

        Raises:
            PassError: the shape does not begin with the tokens, or holds them twice.
        """
        if shape[:2] == (self.batch, self.steps):
            rest = shape[2:]
        elif shape[:1] == (self.batch * self.steps,):
            rest = shape[1:]
        elif self._per_sequence(shape):
            return shape
        else:
            raise self.mixes(node, f"its shape [{', '.join(map(str, shape))}] does not begin with the tokens")
        if self.holds_tokens(Value("", TensorType("f32", rest))):
            raise self.mixes(node, f"its shape [{', '.join(map(str, shape))}] holds the tokens twice")
        return (self.tokens, *rest)
