"""The interface of analyses: a pure function of a graph, computed once per graph object.

    @analysis
    def uses(graph: Graph) -> Uses: ...

The result is a frozen dataclass. It is kept for as long as its graph lives and is found by the graph's identity:
graphs are frozen, so an answer never gets stale, and a rewrite makes a new graph with no answers yet. A result must not
hold the graph itself, or neither would ever be freed; it may hold nodes and values.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from typing import TypeVar

from fretsaw.ir import Graph

R = TypeVar("R")


def analysis(fn: Callable[[Graph], R]) -> Callable[[Graph], R]:
    """Compute ``fn(graph)`` once per graph.

    Raises:
        TypeError: the result is no frozen dataclass (a mistake in the analysis).
    """
    known: dict[int, R] = {}

    @wraps(fn)
    def once(graph: Graph) -> R:
        key = id(graph)
        if key in known:
            return known[key]
        found = fn(graph)
        if not is_dataclass(found) or not type(found).__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise TypeError(f"analysis {fn.__name__} must return a frozen dataclass, gave {type(found).__name__}")
        known[key] = found
        weakref.finalize(graph, known.pop, key, None).atexit = False  # before another graph gets the identity
        return found

    return once
