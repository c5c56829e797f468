"""How the runtime may cut prompts into steps of a program: part of the manifest's ``program`` (docs/artifact.md).

A sparse layer chooses blocks of keys for a block of queries from all of its queries in the step, so only cuts between
blocks leave the choice alone; methods that score with the last queries of a prompt allow none.
"""

from __future__ import annotations

from fretsaw.backends.program.options import ProgramOptions
from fretsaw.ir import Graph, Node, get_op
from fretsaw.ir.errors import LoweringError, UsageError
from fretsaw.ir.excerpt import place
from fretsaw.ir.kv import BLOCK


def sparse_attention(graph: Graph) -> list[Node]:
    """The nodes of a packed graph that read listed keys."""
    return [node for node in graph.nodes if "whole_prompt" in get_op(node.op).attrs]


def whole_prompt(graph: Graph) -> Node | None:
    """The first node that needs a prompt in one step, if there is one."""
    return next((node for node in sparse_attention(graph) if node.attr("whole_prompt")), None)


def prompt_rule(graph: Graph, options: ProgramOptions) -> dict[str, int | bool]:
    """``chunk_align`` (tokens) and ``whole_prompts``; empty for programs that do not care.

    Raises:
        UsageError: steps too short to be cut between blocks.
        LoweringError: pages that are not blocks.
    """
    sparse = sparse_attention(graph)
    if not sparse:
        return {}
    if options.page_tokens != BLOCK:
        what = f"sparse attention reads pages of the cache as blocks of {BLOCK} keys; a page has {options.page_tokens}"
        raise LoweringError(what, where=place(sparse[0]), hint=f"build with page_tokens = {BLOCK}")
    if options.chunk_tokens < 2 * BLOCK:
        what = f"--chunk must be at least {2 * BLOCK} tokens with sparse attention, is {options.chunk_tokens}"
        raise UsageError(what, hint=f"a prompt is cut at multiples of {BLOCK} tokens, never before a single one")
    return {"chunk_align": BLOCK, "whole_prompts": whole_prompt(graph) is not None}


def check_whole_prompts(graph: Graph, options: ProgramOptions, context: int) -> None:
    """Refuse a program whose steps could not hold every prompt that they may not cut.

    Args:
        context: Most tokens of a prompt.

    Raises:
        UsageError: prompts of the model may be longer than a step.
    """
    node = whole_prompt(graph)
    if node is None or options.chunk_tokens >= context:
        return
    raise UsageError(
        f"{node.attr('method') or node.op} scores blocks with the last queries of a prompt, so a step has to hold a "
        f"whole one: up to {context} tokens, and --chunk is {options.chunk_tokens}",
        hint=f"compile with --chunk {context}, or with per_chunk=true score with the last queries of every chunk",
    )
