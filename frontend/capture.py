"""Capture a checkpoint: build its model, trace it with torch.export, import the trace, check the result."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from fretsaw.frontend.checkpoint import Checkpoint
from fretsaw.frontend.frames import raised_at
from fretsaw.frontend.import_aten import import_program
from fretsaw.frontend.model import Traced, build_model
from fretsaw.frontend.modes import Attention, Experts
from fretsaw.frontend.parameters import ParameterMap, map_parameters
from fretsaw.frontend.pooling import append_pooling
from fretsaw.ir import Const, Graph, verify
from fretsaw.ir.errors import CaptureError, FretsawError

Progress = Callable[[str, int, int], None]  # step, steps done, steps in all
LOG = logging.getLogger(__name__)
MAX_BATCH = 4096  # sequences; the trace does not depend on it
STEPS = ("build model", "map parameters", "trace", "import")


@dataclass(frozen=True)
class Captured:
    """A captured graph, and the checkpoint tensors that it does not read."""

    graph: Graph
    unused: tuple[str, ...]


def capture(
    checkpoint: Checkpoint,
    progress: Progress | None = None,
    context: int | None = None,
    attention: Attention = "hook",
    experts: Experts = "hook",
) -> Graph:
    """The checkpoint's program in phase ``captured``; see :func:`capture_all`."""
    captured = capture_all(checkpoint, progress, context, attention, experts)
    for name in captured.unused:
        LOG.info("tensor %s is not used", name)
    return captured.graph


def capture_all(
    checkpoint: Checkpoint,
    progress: Progress | None = None,
    context: int | None = None,
    attention: Attention = "hook",
    experts: Experts = "hook",
) -> Captured:
    """Capture a checkpoint.

    A decoder maps ``input_ids`` and ``positions``, i64[B, S], to ``logits`` f32[B, S, V]; an encoder to
    ``hidden`` f32[B, S, D], or to ``embeddings`` f32[B, D] where sentence-transformers' files say how. Positions of
    a row count up by one. Weights are f32 constants that read the checkpoint's files.

    Args:
        progress: Called before each step and once after the last.
        context: Longest sequence in tokens, at most and by default the checkpoint's own.
        attention: ``hook``: one op a layer; ``sdpa`` or ``eager``: as transformers writes it, masks included, for
            `raise_attention` to find.
        experts: ``hook``: one op a layer; ``batched``: written out, for `raise_experts` to find.

    Raises:
        CaptureError: the mode cannot be traced; the model or its weights use something that is not supported, or the
            captured program lacks a layer or a weight that the configuration has.
    """
    report = progress or (lambda step, done, total: None)
    length = checkpoint.context if context is None else context
    if not 1 <= length <= checkpoint.context:
        raise CaptureError(f"context must be 1 to {checkpoint.context} tokens, is {length}", where=str(checkpoint.path))
    report(STEPS[0], 0, len(STEPS))
    model = build_model(checkpoint, length, attention, experts)
    report(STEPS[1], 1, len(STEPS))
    parameters = map_parameters(model, checkpoint.tensors, str(checkpoint.path))
    report(STEPS[2], 2, len(STEPS))
    program = trace(Traced(model, checkpoint.family), length)
    report(STEPS[3], 3, len(STEPS))
    output = "logits" if checkpoint.kind == "decoder" else "hidden"
    graph = import_program(
        program, _data(program, model, parameters), checkpoint.architecture, (MAX_BATCH, length), output
    )
    if checkpoint.sentence is not None:
        graph = append_pooling(graph, checkpoint.sentence)
    verify(graph, when="capture")
    _audit(
        graph,
        model,
        checkpoint,
        [op for op, mode in (("attention", attention), ("experts", experts)) if mode == "hook"],
    )
    report(STEPS[3], len(STEPS), len(STEPS))
    return Captured(graph, _unused(graph, parameters))


def trace(module: nn.Module, context: int) -> ExportedProgram:
    """Export ``module`` for every batch size and every length up to ``context`` tokens.

    Raises:
        CaptureError: the model's code cannot be traced.
    """
    length = min(17, context)
    ids = torch.zeros(2, length, dtype=torch.int64)
    positions = torch.arange(length).expand(2, length)
    batch = Dim("B", min=1, max=MAX_BATCH)
    dims: dict[int, Any] = {0: batch}
    if context > 1:
        dims[1] = Dim("S", min=1, max=context)
    with torch.no_grad(), _quiet():
        try:
            return torch.export.export(module, (ids, positions), dynamic_shapes=(dims, dims), strict=False)
        except FretsawError:
            raise
        except Exception as error:  # the tracer runs the model's code: anything can come out
            cause = error.__cause__ if isinstance(error.__cause__, FretsawError) else None
            if cause is not None:
                raise cause from None
            text = re.sub(r"\s+", " ", str(error))[:400]
            raise CaptureError(
                f"torch.export cannot trace the model: {type(error).__name__}: {text}",
                where=raised_at(error),
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tracer's deprecation notes about itself away from the user."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _data(program: ExportedProgram, model: nn.Module, parameters: ParameterMap) -> dict[str, Const]:
    """Constants by placeholder name. Computed buffers are stored; the rest reads the checkpoint."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    consts: dict[str, Const] = {}
    for placeholder, path in names.items():
        name = path.removeprefix("m.")
        const = parameters.consts.get(name)
        if const is None:  # a buffer that transformers computes, e.g. rotary frequencies
            const = Const.of(model.get_buffer(name).detach().numpy().copy(), source=name)
        consts[placeholder] = const
    for placeholder, name in signature.inputs_to_lifted_tensor_constants.items():
        value = program.constants[name]
        assert isinstance(value, torch.Tensor)
        consts[placeholder] = Const.of(value.detach().numpy().copy(), source=name)
    return consts


def _audit(graph: Graph, model: Any, checkpoint: Checkpoint, hooked: Sequence[str]) -> None:
    """The program has one attention per layer and one experts op per mixture, each of the configured size.

    Args:
        hooked: The ops that hooks leave; what is captured written out is counted after it is raised.
    """
    config = model.config
    counts = {"attention": int(config.num_hidden_layers)}
    mixtures = [m for m in model.modules() if hasattr(m, "is_transposed") and hasattr(m, "gate_up_proj")]
    counts["experts"] = len(mixtures)
    for op, want in counts.items():
        if op in hooked and graph.count(op) != want:
            raise CaptureError(
                f"the captured program has {graph.count(op)} {op} ops, the model has {want}",
                where=str(checkpoint.path),
            )
    configured = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    for node in graph.nodes:
        if node.op == "experts" and node["gate_up"].tensor.shape[0] != configured:
            raise CaptureError(
                f"{node['gate_up'].tensor.shape[0]} experts captured, {configured} configured",
                where=node.loc.module,
            )


def _unused(graph: Graph, parameters: ParameterMap) -> tuple[str, ...]:
    """Checkpoint tensors without a parameter, and parameters that the program does not read."""
    read = {c.source for c in graph.consts.values()}
    idle = {c.source for c in parameters.consts.values()} - read
    return tuple(sorted({*parameters.unused, *idle}))
