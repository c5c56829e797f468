"""Read buffers that are filled piece by piece as the concatenation that they are.

    %e = empty([.., 20])                      %k = cat(%a, %b, dim)
    copy_(slice(%e, dim, 0, 12), %a)    ==>   attention(.., %k)
    copy_(slice(%e, dim, 12, 20), %b)
    attention(.., %e)

Only the exact shape above is read so: the slices tile one axis in full, each is written once and read by
nothing, and every other reader of the buffer comes after the last write.
"""

from __future__ import annotations

import torch
from torch import fx

EMPTY = (
    torch.ops.aten.new_empty.default,
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_like.default,
)


def join_filled_buffers(graph: fx.Graph) -> None:
    """Replace every filled buffer of a traced graph; leaves alone what it does not recognise."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in EMPTY:
            _join(graph, node, order)


def _join(graph: fx.Graph, buffer: fx.Node, order: dict[fx.Node, int]) -> None:
    slices = [u for u in buffer.users if u.target is torch.ops.aten.slice.Tensor]
    writes = [next(iter(s.users)) for s in slices if len(s.users) == 1]
    if not slices or len(writes) != len(slices):
        return
    if any(w.target is not torch.ops.aten.copy_.default or w.args[0] is not s or w.users
           for w, s in zip(writes, slices, strict=True)):  # fmt: skip
        return
    pieces = sorted(zip(slices, writes, strict=True), key=lambda piece: _start(piece[0]))
    axes = {_axis(s, buffer) for s in slices}
    last = max(writes, key=order.__getitem__)
    readers = [u for u in buffer.users if u not in slices]
    if len(axes) != 1 or not _tiles(pieces, buffer) or any(order[r] < order[last] for r in readers):
        return
    with graph.inserting_after(last):
        joined = graph.call_function(torch.ops.aten.cat.default, ([w.args[1] for _, w in pieces], axes.pop()))
    joined.meta = dict(buffer.meta)
    for reader in readers:
        reader.replace_input_with(buffer, joined)
    for node in (*writes, *slices, buffer):
        graph.erase_node(node)


def _axis(node: fx.Node, buffer: fx.Node) -> int:
    axis = node.args[1] if len(node.args) > 1 else 0
    assert isinstance(axis, int)
    return axis % int(buffer.meta["val"].ndim)


def _start(node: fx.Node) -> int:
    start = node.args[2] if len(node.args) > 2 else 0
    return start if isinstance(start, int) else -1


def _tiles(pieces: list[tuple[fx.Node, fx.Node]], buffer: fx.Node) -> bool:
    """Slices follow each other from zero to the end of their axis, and sources have exactly their shapes."""
    at = 0
    whole = buffer.meta["val"].shape
    for node, write in pieces:
        source = write.args[1]
        step = node.args[4] if len(node.args) > 4 else 1
        if _start(node) != at or step != 1 or not isinstance(source, fx.Node):
            return False
        if source.meta["val"].shape != node.meta["val"].shape or source.meta["val"].dtype != buffer.meta["val"].dtype:
            return False
        at += node.meta["val"].shape[_axis(node, buffer)]
    return bool(at == whole[_axis(pieces[0][0], buffer)])
