"""Build the transformers model of a checkpoint for tracing, without its weights.

Parameters are allocated and never written, so they cost address space and no memory; buffers that the model
computes itself (rotary frequencies) are real. Rotary embeddings that change with the length of the sequence
are fixed here for the checkpoint's context.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.initialization import no_init_weights
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from fretsaw.frontend import hooks
from fretsaw.frontend.checkpoint import Checkpoint
from fretsaw.frontend.families import FAMILIES
from fretsaw.frontend.modes import Attention, Experts, check_modes
from fretsaw.ir.errors import CaptureError

# Frequencies of "dynamic" change only beyond max_position_embeddings, which no compiled program exceeds.
STATIC = ("default", "linear", "llama3", "yarn", "proportional", "dynamic")
FIXED = "fixed"  # a rope type that transformers never updates in the forward pass


def build_model(
    checkpoint: Checkpoint, context: int, attention: Attention = "hook", experts: Experts = "hook"
) -> nn.Module:
    """The checkpoint's model, f32, attention and experts hooked or as transformers writes them, parameters without
    values.

    Raises:
        CaptureError: transformers refuses the configuration, or has not this form of attention for the family.
    """
    check_modes(attention, experts)
    family = FAMILIES[checkpoint.family]
    where = str(checkpoint.path / "config.json")
    if attention == "sdpa" and not getattr(transformers, family.class_name)._supports_sdpa:
        raise CaptureError(
            f"{family.class_name} has no attention through scaled_dot_product_attention", where=where,
            hint="use attention='hook' or attention='eager'",
        )  # fmt: skip
    try:
        config = CONFIG_MAPPING[family.model_type].from_dict(dict(checkpoint.config))
        config._attn_implementation = hooks.NAME if attention == "hook" else attention
        config._experts_implementation = hooks.NAME if experts == "hook" else "batched_mm"
        config.dtype = torch.float32
        extra = {"add_pooling_layer": False} if family.model_type == "bert" else {}
        with no_init_weights():
            model: Any = getattr(transformers, family.class_name)(config, **extra)
        model.tie_weights()
    except CaptureError:
        raise
    except Exception as error:  # whatever transformers' own checks raise is about the user's configuration
        text = re.sub(r"\s+", " ", str(error))
        raise CaptureError(
            f"transformers cannot build {family.class_name}: {type(error).__name__}: {text}", where=where,
            hint="check config.json: a value is missing, has the wrong type or does not fit the others",
        ) from None  # fmt: skip
    for module in model.modules():
        if hasattr(module, "rope_type"):
            _fix_rope(module, context, where)
    assert isinstance(model, nn.Module)
    return model.eval()


def _fix_rope(module: Any, context: int, where: str) -> None:
    """Choose the frequencies for ``context`` tokens once, where transformers chooses them at every call."""
    types = module.rope_type
    if isinstance(types, str):
        module.rope_type = _fix_one(module, types, None, context, where)
    else:
        module.rope_type = {layer: _fix_one(module, t, layer, context, where) for layer, t in types.items()}


def _fix_one(module: Any, rope_type: str, layer: str | None, context: int, where: str) -> str:
    config, prefix = module.config, f"{layer}_" if layer else ""
    parameters = config.rope_parameters[layer] if layer else config.rope_parameters
    if rope_type == "longrope":
        original = int(parameters["original_max_position_embeddings"])
        if context > original:  # the long factors; the short ones are what the module was built with
            extra = {"layer_type": layer} if layer else {}
            frequencies, _ = ROPE_INIT_FUNCTIONS[rope_type](config, None, seq_len=original + 1, **extra)
            getattr(module, f"{prefix}inv_freq").data.copy_(frequencies)
    elif rope_type not in STATIC:
        raise CaptureError(f"rope type {rope_type!r} is not supported", where=where)
    return FIXED


class Traced(nn.Module):
    """What is exported: token ids and positions i64 [B, S] -> logits [B, S, V] or hidden states [B, S, D]."""

    def __init__(self, model: nn.Module, family: str) -> None:
        super().__init__()
        self.m = model
        self._family = family

    def forward(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        extra: dict[str, Any] = {}
        if FAMILIES[self._family].kind == "decoder":
            extra["use_cache"] = False
        elif self._family == "bert":  # one segment: without this, a table of zeros is gathered by position
            extra["token_type_ids"] = torch.zeros_like(input_ids)
        out: Tensor = self.m(input_ids=input_ids, position_ids=positions, **extra)[0]
        return out
