"""Does a constant's data have the type that the constant says, as far as that is known without loading it?"""

from __future__ import annotations

from math import prod

from fretsaw.ir.builder import make_node
from fretsaw.ir.consts import ArrayData, Const, DeclaredData, FileData, OpData
from fretsaw.ir.errors import VerifyError
from fretsaw.ir.formats import FORMATS
from fretsaw.ir.lexer import MAX_NESTING
from fretsaw.ir.node import Value
from fretsaw.ir.types import ITEMSIZE, numpy_dtype


def const_problem(const: Const, depth: int = 0) -> str:
    """What is wrong, as the rest of a sentence that begins with the constant; empty when nothing is."""
    data = const.data
    kept = FORMATS.get(const.format)
    if kept is None:
        return f"is kept as {const.format}, and there is no such format: {', '.join(FORMATS)}"
    if const.type.dtype not in kept.dtypes:
        return f"is {const.type}, which the format {const.format} cannot hold"
    if isinstance(data, FileData):
        want = prod(d for d in const.type.shape if isinstance(d, int)) * ITEMSIZE.get(data.dtype, 0)
        return "" if data.nbytes == want else f"is {const.type}, its data has {data.nbytes} bytes"
    if isinstance(data, ArrayData):
        same = data.array.shape == const.type.shape and data.array.dtype == numpy_dtype(const.type.dtype)
        return "" if same else f"is {const.type}, its data is {data.array.dtype}{list(data.array.shape)}"
    if isinstance(data, DeclaredData):
        return "" if data.type == const.type else f"is {const.type}, its data is declared {data.type}"
    return _computed(const, data, depth) if isinstance(data, OpData) else ""


def _computed(const: Const, data: OpData, depth: int) -> str:
    """An op on constants has to be a node that the catalogue accepts, whose result has the type."""
    if depth >= MAX_NESTING:
        return f"is computed by ops nested over {MAX_NESTING} deep"
    for operand in data.operands:
        problem = const_problem(operand, depth + 1)
        if problem:
            return f"is computed from one that {problem}"
    operands = [Value("operand", c.type) for c in data.operands]
    try:
        node = make_node(data.op, operands, dict(data.attrs), [data.op])
    except VerifyError as error:
        return f"cannot be computed: {error.what}"
    if node.attrs != data.attrs:
        return f"is computed by {data.op} with attributes that are not in normal form"
    if not 0 <= data.result < len(node.results) or node.results[data.result].type != const.type:
        return f"is {const.type}, {data.op} gives {', '.join(str(v.type) for v in node.results)}"
    return ""
