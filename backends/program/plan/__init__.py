"""Cover a packed graph with kernel launches. One file per kind of site; ``planner.plan`` walks the graph."""

from fretsaw.backends.program.plan.planner import plan

__all__ = ["plan"]
