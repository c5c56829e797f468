"""Where a traced node comes from: module path in the checkpoint and line of the model's source."""

from __future__ import annotations

from torch import fx

from fretsaw.frontend.frames import called_at
from fretsaw.ir import Loc


def location(node: fx.Node) -> Loc:
    """Module path without the wrapper's prefix, and ``file.py:line`` of the innermost frame of the model."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next((str(entry[0]) for entry in reversed(list(stack.values()))), "")
    path = "" if path == "m" else path.removeprefix("m.")
    return Loc(path, called_at(node.meta.get("stack_trace") or ""))
