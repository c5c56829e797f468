"""Generic code names no op, pass or method: it asks a trait, a registry or a hook."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from fretsaw.ir import catalogue
from fretsaw.passes.kit.registry import Registry
from fretsaw.passes.sparse.methods import METHODS

GENERIC = (
    "ir/*.py", "passes/*.py", "passes/kit/**/*.py", "passes/evidence/*.py", "tools/compiler.py", "tools/contents.py",
    "tools/commands/compile.py",
)  # fmt: skip
# Strings that look like a name: another meaning of the word, or an op that the code itself builds.
OTHER_WORDS = {
    ("ir/traits.py", "attention"): "a kind of op",
    ("ir/quantized.py", "dequantize"): "builds one, and finds what it built",
    ("ir/quantized.py", "concat"): "builds one, and finds what it built",
    ("passes/evidence/long.py", "attention"): "a kind of op",
    ("passes/evidence/options.py", "auto"): "how checks cut graphs",
    ("passes/evidence/check.py", "auto"): "how checks cut graphs",
    ("passes/kit/registry.py", "where"): "a part of an error",
    ("tools/contents.py", "embedding"): "a key of the manifest",
    ("passes/kit/match.py", "reshape"): "builds one",
    ("passes/evidence/wide.py", "cast"): "builds one",
    ("passes/evidence/wide.py", "full"): "has a dtype that is f32 by default",
    ("passes/kit/cost.py", "reshape"): "writes nothing, whatever backend runs it",
}
REGISTRATIONS = {"passes/pipeline.py"}  # lists the passes; imports of them are its purpose


def names() -> frozenset[str]:
    """Of all ops, passes and methods."""
    return frozenset({*catalogue(), *Registry.built_in().passes, *METHODS})


def named(source: str, known: frozenset[str], *, imports: bool = True) -> Iterator[tuple[int, str]]:
    """Lines of ``source`` with a string that is one of the names, or with an import of one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known:
            yield node.lineno, node.value
        elif imports and isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fretsaw.passes."):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in known)


def check(root: Path, known: frozenset[str]) -> list[str]:
    """Every name in generic code that no exception covers, as ``file:line: name``."""
    out = []
    for path in sorted({p for pattern in GENERIC for p in root.glob(pattern)}):
        file = path.relative_to(root).as_posix()
        for line, name in named(path.read_text(), known, imports=file not in REGISTRATIONS):
            if (file, name) not in OTHER_WORDS:
                out.append(f"{file}:{line}: {name}")
    return out


def test_generic_code_names_nothing(root: Path) -> None:
    assert check(root, names()) == []


def test_every_exception_is_used(root: Path) -> None:
    known = names()
    for file, name in OTHER_WORDS:
        assert name in {found for _, found in named((root / file).read_text(), known)}, (file, name)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("passes/evidence/wrong.py", 'SELECT = ("causal_blocks",)'),
        ("passes/kit/wrong.py", 'if method == "xattention": pass'),
        ("passes/evidence/wrong.py", "from fretsaw.passes.sparse.sparse_attention import sparse_attention"),
        ("passes/pipeline.py", 'found = graph.count("block_attention")'),
        ("tools/compiler.py", 'auto = getattr(options, "method", "") == "auto"'),
        ("ir/wrong.py", 'BANNED = {"kv_append": "the cache exists only after packing"}'),
    ],
)
def test_the_check_can_fail(tmp_path: Path, file: str, line: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f'"""Docstrings may say quest and cse."""\n{line}\n')
    assert len(check(tmp_path, names())) == 1
