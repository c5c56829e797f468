"""Analysis: where the tokens of a batch lie in a value's shape."""

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


def mixes(node: Node, why: str) -> PassError:
    """The refusal to pack ``node``."""
    return PassError(
        f"cannot pack this graph: {node.op} mixes tokens: {why}",
        where="   ".join(
            filter(None, [f"%{node.results[0].name}" if node.results else "", node.loc.module, node.loc.source])
        ),
        when="pass pack_tokens",
        hint="only causal attention may look at other tokens; rewrite this node, or stop at phase fused",
    )


@dataclass(frozen=True)
class TokenAxes:
    """The dims of a padded batch, and the dim T that replaces them."""

    batch: DimLike
    steps: DimLike
    tokens: DimLike

    def lead(self, value: Value) -> Lead:
        if not isinstance(value.type, TensorType):
            return Lead.NONE
        shape = value.type.shape
        if shape[:2] == (self.batch, self.steps):
            return Lead.BATCH
        return Lead.FLAT if shape[:1] == (self.batch * self.steps,) else Lead.NONE

    def holds_tokens(self, value: Value) -> bool:
        """Some axis of the value depends on the batch or its length."""
        symbols = {n for d in (self.batch, self.steps) if isinstance(d, Dim) for n in d.symbols}
        shape = value.type.shape if isinstance(value.type, TensorType) else ()
        return any(isinstance(d, Dim) and d.symbols & symbols for d in shape)

    def packed(self, shape: Shape, node: Node) -> Shape:
        """``shape`` with the token axes replaced by T.

        Raises:
            PassError: the shape does not begin with the tokens, or holds them twice.
        """
        if shape[:2] == (self.batch, self.steps):
            rest = shape[2:]
        elif shape[:1] == (self.batch * self.steps,):
            rest = shape[1:]
        else:
            raise mixes(node, f"its shape [{', '.join(map(str, shape))}] does not begin with the tokens")
        if self.holds_tokens(Value("", TensorType("f32", rest))):
            raise mixes(node, f"its shape [{', '.join(map(str, shape))}] holds the tokens twice")
        return (self.tokens, *rest)
