"""Where a traced node comes from: module path in the checkpoint and line of the model's source."""

from __future__ import annotations

import re

from torch import fx

from fretsaw.ir import Loc

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_SKIPPED = ("/torch/", "/fretsaw/frontend/", "/frontend/hooks.py", "/frontend/model.py")


def location(node: fx.Node) -> Loc:
    """Module path without the wrapper's prefix, and ``file.py:line`` of the innermost frame of the model."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next((str(entry[0]) for entry in reversed(list(stack.values()))), "")
    path = "" if path == "m" else path.removeprefix("m.")
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    own = [f for f in frames if not any(s in f[0] for s in _SKIPPED)]
    source = f"{own[-1][0].rsplit('/', 1)[-1]}:{own[-1][1]}" if own else ""
    return Loc(path, source)
