"""Kernels of a mixture of experts."""

from __future__ import annotations

from tvm import tirx

from fretsaw.backends.program.codes import grouped_storage, weight_storage
from fretsaw.backends.program.specs.moe import CombineSpec, GroupedSpec, SortSpec
from fretsaw.backends.tvm.builders.arguments import extra_buffers
from fretsaw.backends.tvm.builders.layers import after
from fretsaw.backends.tvm.kernels import moe as kernels
from fretsaw.backends.tvm.kernels import router
from fretsaw.backends.tvm.kernels.epilogue import Glu
from fretsaw.backends.tvm.kernels.isa import Isa


def sort(s: SortSpec, isa: Isa) -> tirx.PrimFunc:
    return router.sort_by_expert(s.experts, s.slots, s.name)


def grouped(s: GroupedSpec, isa: Isa) -> tirx.PrimFunc:
    glu = Glu(s.glu) if s.glu else None
    if s.glu == "clamped_swiglu":
        glu = Glu(limit=s.limit, alpha=s.alpha)
    classes = tuple((grouped_storage(name), size) for name, size in s.classes)
    weight = "" if classes else weight_storage(s.weight)
    return kernels.grouped_gemm(
        kernels.GroupedSpec(s.experts, s.n, s.k, isa, weight, classes, s.gather, glu, s.bias, s.name)
    )


def combine(s: CombineSpec, isa: Isa) -> tirx.PrimFunc:
    finish, extra = after(s.tree, s.kinds), extra_buffers(s.kinds, s.width)
    return kernels.combine(kernels.CombineSpec(s.width, s.slots, isa, finish, extra, s.name))
