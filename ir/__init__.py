"""The intermediate representation: the ground floor that everything else stands on."""

from fretsaw.ir import ops as _ops  # noqa: F401  declares the ops
from fretsaw.ir.builder import GraphBuilder, make_node
from fretsaw.ir.consts import ArrayData, Const, DeclaredData, DigestData, FileData, OpData
from fretsaw.ir.dims import Dim, DimLike, Shape, evaluate, parse_dim, sym
from fretsaw.ir.interp import evaluate_graph, run
from fretsaw.ir.kv import ReferenceKvCache
from fretsaw.ir.node import Graph, Loc, Node, Use, Value
from fretsaw.ir.op import Attr, OpDef, catalogue, get_op
from fretsaw.ir.parser import parse
from fretsaw.ir.printer import to_text
from fretsaw.ir.types import DType, HandleType, TensorType, ValueType
from fretsaw.ir.verify import verify

__all__ = [
    "ArrayData", "Attr", "Const", "DType", "DeclaredData", "DigestData", "Dim", "DimLike", "FileData", "Graph",
    "GraphBuilder", "HandleType", "Loc", "Node", "OpData", "OpDef", "ReferenceKvCache", "Shape", "TensorType", "Use",
    "Value", "ValueType", "catalogue", "evaluate", "evaluate_graph", "get_op", "make_node", "parse", "parse_dim", "run",
    "sym", "to_text", "verify",
]  # fmt: skip
