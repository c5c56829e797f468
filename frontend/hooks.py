"""Capture hooks: attention and experts leave transformers' models as single ops of the namespace ``fretsaw``.

transformers lets a model's attention, its masks and its experts be replaced by name. Registered here under
``fretsaw`` are ops that have a shape and no body; tracing a model leaves them in the graph with everything
the family needs: scale, causality, window, soft cap, sinks, expert biases, gate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.moe import ExpertsInterface
from transformers.masking_utils import AttentionMaskInterface

from fretsaw.ir.errors import CaptureError

NAME = "fretsaw"
ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
IGNORED = {"dropout", "deterministic", "use_cache", "position_ids", "cache_position", "output_attentions"}

_LIBRARY = torch.library.Library(NAME, "DEF")  # type: ignore[no-untyped-call]
_SCHEMAS = (
    "attention(Tensor q, Tensor k, Tensor v, Tensor? sinks, "
    "float scale, bool causal, int window, float softcap) -> Tensor",
    "experts(Tensor x, Tensor index, Tensor weight, Tensor gate_up, Tensor down, Tensor? gate_up_bias, "
    "Tensor? down_bias, str act, str layout, bool transposed, float? limit, float alpha) -> Tensor",
)
for _schema in _SCHEMAS:
    _LIBRARY.define(_schema)  # type: ignore[no-untyped-call]


def _attention_shape(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    scale: float,
    causal: bool,
    window: int,
    softcap: float,
) -> Tensor:
    """q [B, H, S, E], v [B, K, S, Ev] -> [B, S, H, Ev]."""
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1], v.shape[3])


def _experts_shape(x: Tensor, *rest: object) -> Tensor:
    """x [T, D] -> [T, D]."""
    return torch.empty_like(x)


torch.library.register_fake(f"{NAME}::attention", _attention_shape, lib=_LIBRARY)
torch.library.register_fake(f"{NAME}::experts", _experts_shape, lib=_LIBRARY)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """transformers' attention call as one op."""
    strange = sorted(k for k, v in rest.items() if v is not None and v is not False and k not in IGNORED)
    if strange or attention_mask is not None:
        what = ", ".join(strange) or "attention_mask"
        raise CaptureError(f"attention with {what} is not supported", where=type(module).__name__)
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    scale = scaling if scaling is not None else float(query.shape[-1]) ** -0.5
    out = torch.ops.fretsaw.attention(
        query, key, value, s_aux, float(scale), bool(causal), int(sliding_window or 0), float(softcap or 0.0)
    )
    return out, None


def _experts(module: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """transformers' experts call as one op."""
    limit, alpha = None, 1.702
    gate = type(module)._apply_gate.__qualname__
    if gate == "_default_apply_gate":
        name = module.config.hidden_act
        act = ACTIVATIONS.get(name, "")
        if not act:
            raise CaptureError(
                f"experts with activation {name!r} are not supported", where=type(module).__name__,
                hint=f"supported: {', '.join(ACTIVATIONS)}",
            )  # fmt: skip
    elif gate == "GptOssExperts._apply_gate":
        act, limit, alpha = "clamped_swiglu", float(module.limit), float(module.alpha)
    else:
        raise CaptureError(f"the gate of {type(module).__name__} is not supported", where=gate)
    if not module.has_gate or module.has_post_expert_norm:
        raise CaptureError("experts without gate or with a norm are not supported", where=type(module).__name__)
    biases = (module.gate_up_proj_bias, module.down_proj_bias) if module.has_bias else (None, None)
    layout = "concat" if module.is_concatenated else "interleaved"
    out: Tensor = torch.ops.fretsaw.experts(
        hidden_states, top_k_index, top_k_weights, module.gate_up_proj, module.down_proj, *biases,
        act, layout, bool(module.is_transposed), limit, alpha,
    )  # fmt: skip
    return out


def _no_mask(*args: object, **kwargs: object) -> None:
    """The attention op carries causality and window itself."""


AttentionInterface.register(NAME, _attention)
AttentionMaskInterface.register(NAME, _no_mask)
ExpertsInterface.register(NAME, _experts)
