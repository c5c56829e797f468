"""The table of ``fretsaw bench``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

Entry = Mapping[str, Any]  # of fretsaw.tools.prefill.summary


def prefill_table(about: Mapping[str, object], found: Sequence[Entry]) -> Table:
    """A row per length and artifact; speed is how many times as soon as the other one its first token came."""
    title = f"medians of {about['rounds']} rounds on {about['prompts']}"
    table = Table(title=Text(title), title_justify="left")
    for name in ("tokens", "artifact", "first token", "prefill", "decode", "speed"):
        table.add_column(name, justify="left" if name == "artifact" else "right", overflow="fold")
    names = {key: str(about[key]) for key in ("artifact", "against")}
    if Path(names["artifact"]).name != Path(names["against"]).name:
        names = {key: Path(name).name for key, name in names.items()}
    for entry in found:
        for key in ("artifact", "against"):
            if key not in entry:
                continue
            of = entry[key]
            decode = f"{of['decode_tok_s']:.1f} tok/s" if of["decode_tok_s"] else ""
            speed = f"{entry['speedup']:.2f}x" if key == "artifact" and "speedup" in entry else ""
            cells = (f"{of['first_token_ms']:,.0f} ms", f"{of['prefill_tok_s']:,.0f} tok/s", decode, speed)
            table.add_row(f"{entry['tokens']:,}" if key == "artifact" else "", Text(names[key]), *cells)
    return table
