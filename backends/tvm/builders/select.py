"""Kernels of selectors, by the op that their spec names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tvm import tirx

from fretsaw.backends.program.specs.select import SelectSpec
from fretsaw.backends.tvm.kernels import select_antidiagonal as antidiagonal_kernel
from fretsaw.backends.tvm.kernels import select_bounds as bounds_kernel
from fretsaw.backends.tvm.kernels import select_chunks as chunks_kernel
from fretsaw.backends.tvm.kernels import select_dots as dots
from fretsaw.backends.tvm.kernels import select_flex as flex_kernel
from fretsaw.backends.tvm.kernels import select_gate as gate
from fretsaw.backends.tvm.kernels import select_halving as halving_kernel
from fretsaw.backends.tvm.kernels import select_hash as hash_kernel
from fretsaw.backends.tvm.kernels import select_line_blocks as line_blocks_kernel
from fretsaw.backends.tvm.kernels import select_line_tokens as line_tokens_kernel
from fretsaw.backends.tvm.kernels import select_lines as lines_kernel
from fretsaw.backends.tvm.kernels import select_masks as masks
from fretsaw.backends.tvm.kernels import select_pools as pools
from fretsaw.backends.tvm.kernels import select_representatives as representatives
from fretsaw.backends.tvm.kernels import select_rules as rules
from fretsaw.backends.tvm.kernels import select_windows as windows_kernel
from fretsaw.backends.tvm.kernels.isa import Isa


def _mask(kind: str) -> Builder:
    def build(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
        spec = masks.MaskSpec(kind, s.heads, name=s.name)
        if kind == "forced":
            spec = replace(spec, sink=(s.whole("sink"),), local=s.whole("local"))
        elif kind == "span":
            spec = replace(spec, sink=s.counts("sink"), window=s.counts("window"))
        elif kind == "elastic":
            spec = replace(spec, sink=(s.whole("sink"),), window=(s.whole("alpha"), s.whole("beta")))
        elif kind == "strided":
            spec = replace(spec, local=s.whole("local"), stride=s.whole("stride"), offsets=s.counts("offsets"))
        if kind not in ("causal", "prompt", "earlier"):
            spec = replace(spec, dense_until=s.whole("dense_until"), last_rows=s.whole("last_rows"))
        return masks.mask(spec)

    return build


def _rule(kind: str, value: str) -> Builder:
    return lambda s, isa: rules.rule(rules.RuleSpec(kind, s.heads, s.real(value), s.name))


def _pool_queries(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    heads, size = s.operands[0]
    return pools.pool_queries(pools.PoolSpec(heads, size, s.text("kind"), isa, name=s.name))


def _pool_keys(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    heads, size = s.whole("kv_heads"), s.whole("size")
    return pools.pool_keys(pools.PoolSpec(heads, size, s.text("kind"), isa, s.kv, bool(s.whole("decode")), name=s.name))


def _dots(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    (heads, size), (kv_heads, _) = s.operands
    band = (s.whole("start"), s.whole("end")) if s.op == "band_scores" else ()
    return dots.block_scores(dots.DotSpec(heads, kv_heads, size, s.real("scale"), isa, band, s.name))


def _antidiagonal(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    heads, size = s.operands[0]
    spec = antidiagonal_kernel.AntidiagonalSpec(
        heads, s.whole("kv_heads"), size, s.whole("stride"), s.real("scale"), isa, s.real("norm"), s.kv,
        bool(s.whole("decode")), s.name,
    )  # fmt: skip
    return antidiagonal_kernel.antidiagonal(spec)


def _lines(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    heads, size = s.operands[0]
    spec = lines_kernel.LineSpec(
        heads, s.whole("kv_heads"), size, s.whole("rows"), s.real("scale"), isa, s.kv, bool(s.whole("decode")), s.name
    )
    return lines_kernel.line_scores(spec)


def _line_blocks(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    kind = {"line_blocks": "lines", "line_block_scores": "scores", "flex_blocks": "flex"}[s.op]
    spec = line_blocks_kernel.LineBlockSpec(kind, s.heads, name=s.name)
    if kind == "flex":
        spec = replace(spec, gamma=s.real("gamma"), least=s.whole("min_blocks"), most=s.whole("max_blocks"))
    else:
        budgets, kept = (
            (s.whole("columns"), s.whole("diagonals")),
            (s.whole("first_columns"), s.whole("near_diagonals")),
        )
        spec = replace(spec, budgets=budgets, kept=kept)
    return line_blocks_kernel.line_blocks(spec)


def _line_tokens(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    spec = line_tokens_kernel.LineTokenSpec(s.counts("columns"), s.whole("first_columns"), s.name)
    return line_tokens_kernel.line_tokens(spec)


def _windows(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    heads, size = s.operands[0]
    spec = windows_kernel.WindowSpec(
        heads, s.whole("kv_heads"), size, s.whole("kernel"), s.whole("stride"), s.real("scale"), isa, s.kv,
        bool(s.whole("decode")), s.name,
    )  # fmt: skip
    return windows_kernel.compressed_scores(spec)


def _bounds(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    (heads, size), (kv_heads, _), _ = s.operands
    decode, single = bool(s.whole("decode")), bool(s.whole("single"))
    return bounds_kernel.bound_scores(
        bounds_kernel.BoundSpec(heads, kv_heads, size, s.real("scale"), isa, decode, single, s.name)
    )


def _halving(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    heads, size = s.operands[0]
    spec = halving_kernel.HalvingSpec(
        heads, s.whole("kv_heads"), size, s.whole("blocks"), isa, s.kv, bool(s.whole("decode")), s.name
    )
    return halving_kernel.halving(spec)


def _hash(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    (heads, size), (kv_heads, _), (_, planes) = s.operands
    return hash_kernel.hash_scores(hash_kernel.HashSpec(heads, kv_heads, size, planes, s.name))


def _gate_queries(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    heads, size = s.operands[0]
    weighted = len(s.operands) > 2
    return gate.gate_queries(gate.GateSpec(heads, size, heads, s.text("layout"), isa, weighted, name=s.name))


def _gate_keys(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    gates, size = s.results[0]
    spec = gate.GateSpec(
        s.whole("kv_heads"), size, gates, s.text("layout"), isa, True, s.kv, bool(s.whole("decode")), s.name
    )  # fmt: skip
    return gate.gate_keys(spec)


def _chunks(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    (heads, size), (kv_heads, _) = s.operands[:2]
    spec = chunks_kernel.ChunkSpec(heads, kv_heads, size, s.real("scale"), s.text("layout"), isa, s.name)
    return chunks_kernel.chunk_keys(spec)


def _representatives(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    heads, size = s.operands[0]
    spec = representatives.RepresentativeSpec(
        heads, s.whole("kv_heads"), size, s.whole("window"), s.whole("count"), s.real("scale"), isa, s.kv,
        bool(s.whole("decode")), s.name,
    )  # fmt: skip
    return representatives.representative_keys(spec)


def _flex(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    (heads, size), (kv_heads, _) = s.operands[1:3]
    spec = flex_kernel.FlexSpec(
        heads, kv_heads, size, s.real("scale"), s.real("gamma"), s.real("tau"), isa, s.name
    )  # fmt: skip
    return flex_kernel.flex_switch(spec)


Builder = Callable[[SelectSpec, Isa], tirx.PrimFunc]
OPS: Mapping[str, Builder] = {
    "causal_blocks": _mask("causal"),
    "prompt_blocks": _mask("prompt"),
    "earlier_blocks": _mask("earlier"),
    "forced_blocks": _mask("forced"),
    "span_blocks": _mask("span"),
    "elastic_blocks": _mask("elastic"),
    "strided_blocks": _mask("strided"),
    "union_blocks": lambda s, isa: masks.union(s.heads, s.name),
    "pick_heads": lambda s, isa: masks.pick(s.counts("choice"), tuple(n for (n,) in s.operands), s.name),
    "block_tokens": lambda s, isa: masks.block_tokens(s.heads, s.name),
    "compact_blocks": lambda s, isa: masks.compact(s.heads, s.name),
    "pool_queries": _pool_queries,
    "pool_keys": _pool_keys,
    "block_scores": _dots,
    "band_scores": _dots,
    "antidiagonal_scores": _antidiagonal,
    "compressed_scores": _windows,
    "bound_scores": _bounds,
    "halving_blocks": _halving,
    "line_scores": _lines,
    "line_blocks": _line_blocks,
    "line_tokens": _line_tokens,
    "line_block_scores": _line_blocks,
    "flex_blocks": _line_blocks,
    "flex_switch": _flex,
    "hash_scores": _hash,
    "sampled_blocks": lambda s, isa: hash_kernel.sampled_blocks(s.heads, s.whole("count"), s.whole("seed"), s.name),
    "gate_queries": _gate_queries,
    "gate_keys": _gate_keys,
    "chunk_keys": _chunks,
    "representative_keys": _representatives,
    "softmax_blocks": lambda s, isa: dots.softmax_blocks(s.heads, isa, s.name),
    "pool_heads": lambda s, isa: dots.pool_heads(s.operands[0][0], s.heads, s.text("kind"), s.name),
    "select_top_k": _rule("top_k", "k"),
    "select_share": _rule("share", "density"),
    "select_top_p": _rule("top_p", "p"),
    "select_above": _rule("above", "threshold"),
}


def select(s: SelectSpec, isa: Isa) -> tirx.PrimFunc:
    """The kernel of a selector."""
    return OPS[s.op](s, isa)
