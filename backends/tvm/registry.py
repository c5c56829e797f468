"""The kernels of this target: for each class of spec, the function that writes the kernel for an instruction set."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm import tirx

from fretsaw.backends.program.specs import key_bounds as key_bound_specs
from fretsaw.backends.program.specs import layers as layer_specs
from fretsaw.backends.program.specs import moe as moe_specs
from fretsaw.backends.program.specs import segments as segment_specs
from fretsaw.backends.program.specs import sparse_attention as sparse_specs
from fretsaw.backends.program.specs.select import SelectSpec
from fretsaw.backends.program.steps import KernelSpec
from fretsaw.backends.tvm.builders import key_bounds, layers, moe, segments, sparse_attention
from fretsaw.backends.tvm.builders.select import select
from fretsaw.backends.tvm.kernels.embedding import embedding
from fretsaw.backends.tvm.kernels.isa import Isa
from fretsaw.backends.tvm.kernels.norm import norm
from fretsaw.backends.tvm.kernels.router import route

# Each takes a spec of its class: a type that Python cannot write for a table.
KERNELS: Mapping[type, Callable[..., tirx.PrimFunc]] = {
    layer_specs.LinearSpec: layers.linear,
    layer_specs.NormSpec: norm,
    layer_specs.EmbeddingSpec: embedding,
    layer_specs.AnglesSpec: layers.angles,
    layer_specs.AppendSpec: layers.append,
    layer_specs.AttentionSpec: layers.attention,
    layer_specs.TakeSpec: layers.take,
    layer_specs.CopySpec: layers.copy,
    layer_specs.ElementwiseSpec: layers.elementwise,
    moe_specs.RouteSpec: route,
    moe_specs.SortSpec: moe.sort,
    moe_specs.GroupedSpec: moe.grouped,
    moe_specs.CombineSpec: moe.combine,
    segment_specs.VarlenSpec: segments.varlen_attention,
    segment_specs.PoolSpec: segments.segment_pool,
    segment_specs.UnitSpec: segments.l2_norm,
    sparse_specs.BlockAttentionSpec: sparse_attention.block_attention,
    sparse_specs.GatherAttentionSpec: sparse_attention.gather_attention,
    sparse_specs.MergeAttentionSpec: sparse_attention.merge_attention,
    key_bound_specs.KeepBoundsSpec: key_bounds.keep_bounds,
    key_bound_specs.StoredBoundsSpec: key_bounds.stored_bounds,
    SelectSpec: select,
}


def build_kernel(spec: KernelSpec, isa: Isa) -> tirx.PrimFunc:
    """The kernel that ``spec`` stands for. Its arguments: buffers read, scalars, buffers made."""
    return KERNELS[type(spec)](spec, isa)
