"""Where each parameter of the model lies in the checkpoint.

transformers renames and merges tensors when it loads (experts stored one by one become one 3-D tensor); its
own conversion tables are followed here, but every result is a lazy constant: catalogue ops over slices of
files. Names on both sides are compared at the end: a missing tensor is an error, an unused one is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
)

from fretsaw.ir import Attr, Const, FileData, OpData, TensorType
from fretsaw.ir.errors import CaptureError
from fretsaw.ir.op import get_op
from fretsaw.ir.types import FLOATS


@dataclass(frozen=True)
class ParameterMap:
    """Constants by the model's parameter names, and the checkpoint tensors that no parameter reads."""

    consts: Mapping[str, Const]
    unused: tuple[str, ...]


def const_op(op: str, operands: Sequence[Const], source: str, **attrs: Attr) -> Const:
    """A lazy constant: catalogue op ``op`` applied to constants."""
    (result,) = get_op(op).shape_rule([c.type for c in operands], attrs)
    assert isinstance(result, TensorType)
    return Const(result, OpData(op, tuple(operands), tuple(sorted(attrs.items()))), source)


def map_parameters(model: Any, tensors: Mapping[str, FileData], where: str) -> ParameterMap:
    """A constant, f32 where it is a float, for every parameter and persistent buffer of ``model``.

    Raises:
        CaptureError: a tensor is missing or has the wrong shape, or a conversion is not supported.
    """
    wanted: dict[str, Any] = model.state_dict(keep_vars=True)
    found, unused = _collect(model, tensors, wanted, where)
    owner: dict[int, str] = {}  # tied parameters are one tensor object: the first name that has data serves all
    for name, parameter in wanted.items():
        if name in found and id(parameter) in owner:
            _check_tied(owner[id(parameter)], name, found, where)
            unused.append(found.pop(name).source)
        elif name in found:
            owner[id(parameter)] = name
    for name, parameter in wanted.items():
        if id(parameter) not in owner:
            raise CaptureError(
                f"tensor {name} is missing", where=where,
                hint=f"the configuration asks for {list(parameter.shape)}; the checkpoint is incomplete or "
                "another model's",
            )  # fmt: skip
        const = found[owner[id(parameter)]]
        if const.type.shape != tuple(parameter.shape):
            shape = list(const.type.shape)
            raise CaptureError(
                f"tensor {const.source} has shape {shape}, "
                f"the configuration asks for {list(parameter.shape)}",
                where=where,
            )  # fmt: skip
        found[name] = const
    return ParameterMap({n: found[n] for n in wanted}, tuple(sorted(unused)))


def _collect(
    model: Any, tensors: Mapping[str, FileData], wanted: Mapping[str, nn.Parameter], where: str
) -> tuple[dict[str, Const], list[str]]:
    """Constants by parameter name, and checkpoint names that lead to no parameter."""
    transforms = get_model_conversion_mapping(model)
    renamings = [t for t in transforms if isinstance(t, WeightRenaming)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    by_pattern = {p: c for c in converters for p in c.source_patterns}
    parts: dict[str, dict[str, list[str]]] = {}
    found: dict[str, Const] = {}
    unused: list[str] = []
    for name in sorted(tensors, key=_natural):
        target, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, dict(wanted))
        if target not in wanted:
            unused.append(name)
        elif pattern is not None:
            parts.setdefault(target, {}).setdefault(pattern, []).append(name)
        elif target in found:
            raise CaptureError(f"tensors {found[target].source} and {name} are both {target}", where=where)
        else:
            found[target] = _f32(_file_const(name, tensors[name], where))
    for target, patterns in parts.items():
        if target in found:
            raise CaptureError(f"{target} is stored whole and in parts", where=where)
        converter = by_pattern[next(iter(patterns))]
        found[target] = _f32(_convert(target, converter, patterns, tensors, where))
    return found, unused


def _convert(
    target: str,
    converter: WeightConverter,
    patterns: Mapping[str, list[str]],
    tensors: Mapping[str, FileData],
    where: str,
) -> Const:
    """The operations of one conversion as catalogue ops."""
    missing = [p for p in converter.source_patterns if p not in patterns]
    if missing:
        raise CaptureError(f"{target}: no tensor matches {missing[0]}", where=where)
    for pattern, names in patterns.items():
        _check_numbers(target, pattern, names, where)
    groups = [[_file_const(n, tensors[n], where) for n in patterns[p]] for p in converter.source_patterns]
    try:
        for operation in converter.operations:
            if isinstance(operation, MergeModulelist):
                groups = [[_stack(group, target, operation.dim)] for group in groups]
            elif isinstance(operation, Concatenate):
                operands = [c for group in groups for c in group]
                groups = [[const_op("concat", operands, target, axis=operation.dim)]]
            else:
                raise CaptureError(f"{target}: conversion {type(operation).__name__} is not supported", where=where)
    except Exception as error:
        if isinstance(error, CaptureError):
            raise
        raise CaptureError(f"{target}: its parts do not fit together: {error}", where=where) from None
    (merged,) = [c for group in groups for c in group]
    return merged


def _check_numbers(target: str, pattern: str, names: Sequence[str], where: str) -> None:
    """Parts numbered by ``*`` in the pattern count up from zero, so that part i is expert i."""
    if "*" not in pattern:
        return
    number = re.compile(re.escape(pattern).replace(r"\*", r"(\d+)"))
    found = [int(m[1]) for n in names if (m := number.search(n))]
    if found != list(range(len(names))):
        gap = next(i for i in range(len(names) + 1) if i not in found)
        raise CaptureError(
            f"tensor {pattern.lstrip('.').replace('*', str(gap))} of {target} is missing",
            where=where,
            hint="the checkpoint is incomplete",
        )


def _stack(group: Sequence[Const], source: str, axis: int) -> Const:
    """Join along a new axis."""
    rows = []
    for const in group:
        shape = (*const.type.shape[:axis], 1, *const.type.shape[axis:])
        rows.append(const_op("reshape", [const], const.source, shape=shape))
    return const_op("concat", rows, source, axis=axis)


def _file_const(name: str, data: FileData, where: str) -> Const:
    if data.dtype not in FLOATS:
        raise CaptureError(
            f"tensor {name} has dtype {data.dtype}; weights must be f64, f32, f16 or bf16", where=where,
            hint="quantized weights are not supported: use the original checkpoint",
        )  # fmt: skip
    return Const(TensorType(data.dtype, data.shape), data, name)


def _f32(const: Const) -> Const:
    """``const``, converted lazily where the file has another float dtype."""
    return const if const.type.dtype == "f32" else const_op("cast", [const], const.source, dtype="f32")


def _check_tied(first: str, second: str, found: Mapping[str, Const], where: str) -> None:
    """Two stored tensors of one tied parameter must be the same."""
    a, b = found[first], found[second]
    if a.type != b.type or not np.array_equal(a.load(), b.load()):
        raise CaptureError(
            f"tensors {a.source} and {b.source} differ, but the configuration ties them", where=where,
            hint="set tie_word_embeddings to false in config.json",
        )  # fmt: skip


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key in which expert 10 comes after expert 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
