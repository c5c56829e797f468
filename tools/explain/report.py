"""An explanation as text or JSON, whole or at one module path; near misses of equal layers are told once."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fretsaw.ir import Graph, Node
from fretsaw.ir.errors import UsageError
from fretsaw.ir.excerpt import excerpt, place
from fretsaw.tools.explain.near import Explanation, NearMiss, root_ops
from fretsaw.tools.report.layers import folded_paths, layer_of


@dataclass(frozen=True)
class Told:
    """Near misses that say the same in several layers; the first stands for all."""

    misses: tuple[NearMiss, ...]

    @property
    def first(self) -> NearMiss:
        return self.misses[0]

    @property
    def paths(self) -> list[str]:
        return list(folded_paths([_path(m) for m in self.misses]))


def under(module: str, path: str) -> bool:
    """``module`` is ``path`` or lies below it; a path may start anywhere: ``layers.3`` is in ``model.layers.3.mlp``.

    >>> under("model.layers.3.mlp", "layers.3"), under("model.layers.31.mlp", "layers.3")
    (True, False)
    """
    return f".{path.strip('.')}." in f".{module}."


def check_site(graph: Graph, path: str) -> None:
    """Refuse a module path that no node lies under.

    Raises:
        UsageError: names the nearest paths.
    """
    modules = {n.loc.module for n in graph.nodes if n.loc.module}
    if any(under(m, path) for m in modules):
        return
    every = sorted({".".join(m.split(".")[: i + 1]) for m in modules for i in range(m.count(".") + 1)})
    near = difflib.get_close_matches(path, every, 3, 0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "module paths stand behind // in the IR text"
    raise UsageError(f"no node lies under module path {path}", hint=hint)


def at_site(found: Explanation, path: str) -> Explanation:
    """Only what concerns nodes under ``path``."""

    def here(node: Node | None) -> bool:
        return node is not None and under(node.loc.module, path)

    def near(misses: Sequence[NearMiss]) -> tuple[NearMiss, ...]:
        return tuple(m for m in misses if here(m.root) or here(m.decline.at))

    hits, silent = (tuple(n for n in nodes if here(n)) for nodes in (found.hits, found.shapeless))
    return Explanation(found.p, found.before, found.after, hits, near(found.misses), near(found.already), silent)


def told(misses: Sequence[NearMiss]) -> list[Told]:
    """Misses with one rule, reason, depth and path below the layer together, in their order."""
    groups: dict[tuple[object, ...], list[NearMiss]] = {}
    for miss in misses:
        layer = layer_of(_path(miss))
        rest = _path(miss).removeprefix(f"{layer[0]}.{layer[1]}") if layer else _path(miss)
        key = (miss.rule, miss.decline.reason, miss.depth, miss.decline.at.op, layer and layer[0], rest)
        groups.setdefault(key, []).append(miss)
    return [Told(tuple(found)) for found in groups.values()]


def lines(found: Explanation, path: str, most: int) -> Iterator[str]:
    """The explanation for people.

    Args:
        path: Module path that was asked about; empty: all.
        most: Near misses shown, equal layers counted once.
    """
    p = found.p
    where = f" under {path}" if path else ""
    counts = f"{_count(len(found.hits), 'site')} hit, {_count(len(found.misses), 'near miss')}"
    yield f"{p.name} ({p.phase}, keeps {p.keeps}){where}: {counts}"
    for label, nodes in (("hit", found.hits), ("already", [m.decline.at for m in found.already])):
        for module, count in _folded(nodes).items():
            yield f"  {label:8}{module}" + (f" ({count} times)" if count > 1 else "")
    groups = told(found.misses)
    for number, group in enumerate(groups[:most], 1):
        yield ""
        yield from _near(found.after, number, group)
    if len(groups) > most:
        yield f"\n{len(groups) - most} more near misses, less deep: --most {len(groups)} shows them"
    yield from _silent(found, path)


def _near(graph: Graph, number: int, group: Told) -> Iterator[str]:
    miss = group.first
    yield f"near miss {number}: {miss.decline.reason}"
    yield f"  at    {place(miss.decline.at)}"
    root = f" from its root {place(miss.root)}" if miss.root is not None and miss.root is not miss.decline.at else ""
    depth = f", {_count(miss.depth, 'step')} away" if root else ""
    yield f"  rule  {miss.rule}{root}{depth}"
    if len(group.misses) > 1:
        yield f"  also  {len(group.misses)} sites in all: {', '.join(group.paths)}"
    for line in excerpt(graph, miss.decline.at).splitlines():
        yield f"  {'>' if line.startswith('> ') else ' '} | {line[2:]}".rstrip()


def _silent(found: Explanation, path: str) -> Iterator[str]:
    """Roots at which no rule saw its shape, or what stands there instead of a root."""
    if found.shapeless:
        yield ""
        by_op = Counter(n.op for n in found.shapeless)
        ops = ", ".join(f"{_count(n, 'node')} of op `{op}`" for op, n in by_op.items())
        yield f"another shape: {ops}: a root op of the pass, but not in the shape that a rule looks for"
        if path:
            yield from (f"  {place(n)}" for n in found.shapeless[:10])
    if found.hits or found.misses or found.already or found.shapeless or not found.p.roots:
        return
    wanted = list(root_ops(found.p))
    there = [n.op for n in found.before.nodes if not path or under(n.loc.module, path)]
    yield f"no node of op {' or '.join(f'`{op}`' for op in wanted)}{f' under {path}' if path else ''}"
    counts = ", ".join(f"{k} {op}" if k > 1 else op for op, k in Counter(there).most_common())
    near = {op: difflib.get_close_matches(op, set(there), 1) for op in wanted}
    guess = [f"`{names[0]}` is nearest to `{op}`" for op, names in near.items() if names]
    yield f"  ops there: {counts}"
    if guess:
        yield f"  {'; '.join(guess)}"


def to_json(found: Explanation, path: str) -> Mapping[str, object]:
    """The explanation as plain data, every near miss with its text."""
    return {
        "pass": found.p.name, "phase": found.p.phase, "keeps": found.p.keeps, "site": path,
        "hits": [_node(n) for n in found.hits],
        "already": [_miss(found.after, m) for m in found.already],
        "near_misses": [_miss(found.after, m) for m in found.misses],
        "shapeless": [_node(n) for n in found.shapeless],
    }  # fmt: skip


def _miss(graph: Graph, miss: NearMiss) -> dict[str, object]:
    return {
        "rule": miss.rule, "reason": miss.decline.reason, "depth": miss.depth, "at": _node(miss.decline.at),
        "root": _node(miss.root) if miss.root is not None else None, "context": excerpt(graph, miss.decline.at),
    }  # fmt: skip


def _node(node: Node) -> dict[str, str]:
    name = node.results[0].name if node.results else ""
    return {"value": name, "op": node.op, "module": node.loc.module, "source": node.loc.source}


def _path(miss: NearMiss) -> str:
    return (miss.root or miss.decline.at).loc.module


def _folded(nodes: Sequence[Node]) -> dict[str, int]:
    """Module paths with layers folded, and how many nodes each path has per layer."""
    counts = Counter(n.loc.module or f"%{n.out.name}" for n in nodes)
    out: dict[str, int] = {}
    for times in sorted(set(counts.values())):
        out.update(dict.fromkeys(folded_paths([m for m, c in counts.items() if c == times]), times))
    return out


def _count(number: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{number} {word if number == 1 else plural}"


__all__ = ["Told", "at_site", "check_site", "lines", "to_json", "told", "under"]
