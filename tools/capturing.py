"""The captured graph of a checkpoint: kept from an earlier run, or captured now."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fretsaw.backends.kernel_cache import GRAPHS, KernelCache, find_place
from fretsaw.ir.stored import dump_graph, load_graph

if TYPE_CHECKING:
    from fretsaw.frontend.checkpoint import Checkpoint
    from fretsaw.ir import Graph

LOG = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]  # step, steps done, steps in all


class Found(NamedTuple):
    """A captured graph, and where it comes from."""

    graph: Graph
    kept: bool  # from an earlier run
    troubles: tuple[str, ...]  # what kept it from being kept or used, a line each


def graph_cache() -> KernelCache:
    """Captured graphs of the user."""
    return KernelCache(find_place(name="graphs"), kind=GRAPHS)


def captured_graph(checkpoint: Checkpoint, progress: Progress | None = None) -> Found:
    """The checkpoint's program in phase ``captured``, the same with and without a cache.

    Raises:
        CaptureError: it cannot be captured.
    """
    from fretsaw.frontend.capture_key import capture_key

    cache, key = graph_cache(), capture_key(checkpoint)
    data = cache.get(key)
    found = load_graph(data, checkpoint.path) if data is not None else None
    if found is not None:
        graph, extra = found
        unused = [str(name) for name in extra["unused"]]
    else:
        if progress is not None:
            progress("load libraries", 0, 1)
        from fretsaw.frontend.capture import capture_all

        captured = capture_all(checkpoint, progress)
        graph, unused = captured.graph, list(captured.unused)
        data = dump_graph(graph, checkpoint.path, {"unused": unused})
        if data is not None:
            cache.put(key, data)
    for name in unused:
        LOG.info("tensor %s is not used", name)
    return Found(graph, found is not None, cache.troubles)
