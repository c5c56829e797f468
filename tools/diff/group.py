"""Equal changes of several layers as one line: ``layers 0-29 mlp: linear gate_proj + up_proj -> linear gate_up``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fretsaw.tools.diff.changes import Change
from fretsaw.tools.report.layers import ranges


@dataclass(frozen=True)
class Line:
    """One change in all layers that have it.

    Args:
        layers: Numbers of the layers that have it; empty outside of layers.
        count: How often the change occurs in all.
    """

    kind: str
    stack: str
    layers: tuple[int, ...]
    place: str
    text: str
    count: int
    several_stacks: bool = False

    @property
    def label(self) -> str:
        """``layer 7 attention``, ``layers 0-29 mlp``, ``lm_head``."""
        if not self.layers:
            return self.place or self.stack or "(no module)"
        word = self.stack if self.several_stacks else "layer" if len(self.layers) == 1 else "layers"
        return f"{word} {ranges(self.layers)} {self.place}".rstrip()

    def __str__(self) -> str:
        per = max(1, len(self.layers))
        often = "" if self.count == per else f" ({self.count} times)"
        colon = " " if self.kind == "graph" else ": "
        return f"{self.label}{colon}{self.text}{often}"

    def to_json(self) -> dict[str, object]:
        return {
            "kind": self.kind, "stack": self.stack, "layers": list(self.layers), "place": self.place,
            "text": self.text, "count": self.count,
        }  # fmt: skip


def grouped(changes: Sequence[Change]) -> list[Line]:
    """Changes that say the same of different layers together, in the order of the first of each."""
    stacks = {c.stack for c in changes if c.layer is not None}
    groups: dict[tuple[str, str, bool, str, str], list[Change]] = {}
    for change in changes:
        key = (change.kind, change.stack, change.layer is None, change.place, change.text)
        groups.setdefault(key, []).append(change)
    out = []
    for (kind, stack, _, place, text), found in groups.items():
        layers = tuple(sorted({c.layer for c in found if c.layer is not None}))
        out.append(Line(kind, stack, layers, place, text, len(found), len(stacks) > 1))
    return out
