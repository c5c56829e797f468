"""Writing plans: which head has which method, as the TOML that ``sparse_attention:plan=FILE`` reads."""

from __future__ import annotations

from collections.abc import Mapping

from fretsaw.passes.kit.options import Plain
from fretsaw.passes.sparse.options import Sparse

Chosen = Mapping[tuple[int, int], Sparse]  # (layer, head) -> method and options


def plan_toml(chosen: Chosen, comments: tuple[str, ...] = ()) -> str:
    """The plan as TOML; heads that ``chosen`` leaves out stay dense. Entries go by layer, then by first head."""
    lines = [*(f"# {line}" for line in comments), ""] if comments else []
    for layer in sorted({layer for layer, _ in chosen}):
        of: dict[Sparse, list[int]] = {}
        for head in sorted(h for n, h in chosen if n == layer):
            of.setdefault(chosen[layer, head], []).append(head)
        for options, heads in of.items():
            lines += ["[[head]]", f"layer = {layer}", f"heads = {_value(tuple(heads))}"]
            lines += [f'method = "{options.method}"', *(f"{k} = {_value(v)}" for k, v in options.own().items())]
            lines += [""]
    return "\n".join(lines)


def _value(value: Plain) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)
