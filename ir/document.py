"""Write the op table of ``docs/ir.md`` from the catalogue: ``python -m fretsaw.ir.document docs/ir.md``."""

from __future__ import annotations

import sys
from pathlib import Path

from fretsaw.ir.op import AttrSpec, OpDef, catalogue

BEGIN, END = "<!-- ops: generated, do not edit -->", "<!-- end of ops -->"


def op_table() -> str:
    """A Markdown table of all ops by name: operands, attributes, meaning."""
    rows = ["| op | operands | attributes | meaning |", "|---|---|---|---|"]
    return "\n".join([*rows, *(_row(op) for _, op in sorted(catalogue().items()))])


def _row(op: OpDef) -> str:
    slots = [f"*{s}*" if s in op.handles else s for s in op.slots]
    attrs = "; ".join(f"{name} {_attr(spec)}" for name, spec in sorted(op.attrs.items()))
    doc = op.doc.replace("|", "\\|")  # a bar would end the cell
    return f"| `{op.name}` | {' '.join(slots)} | {attrs} | {doc} |"


def _attr(spec: AttrSpec) -> str:
    kinds = spec.kind if isinstance(spec.kind, tuple) else (spec.kind,)
    kind = " or ".join(spec.choices) if 0 < len(spec.choices) < 6 else "/".join(k.__name__ for k in kinds)
    return kind if spec.required else f"{kind} = {spec.default}"


def rewrite(text: str) -> str:
    """``text`` with the part between the two markers replaced by the table."""
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    return f"{head}{BEGIN}\n\n{op_table()}\n\n{END}{tail}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(rewrite(path.read_text()))
