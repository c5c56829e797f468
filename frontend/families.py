"""The model families that Fretsaw captures: each is tested against transformers' own logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fretsaw.ir.errors import CaptureError

Kind = Literal["decoder", "encoder"]


@dataclass(frozen=True)
class Family:
    """A family by transformers' ``model_type``.

    Args:
        model_type: The key ``model_type`` in config.json.
        kind: A decoder gives logits, an encoder hidden states.
        architectures: Class names accepted in config.json; for an encoder the base model inside is captured.
        class_name: The transformers class that is built.
    """

    model_type: str
    kind: Kind
    architectures: tuple[str, ...]
    class_name: str


def _decoder(model_type: str, name: str) -> Family:
    return Family(model_type, "decoder", (name,), name)


def _encoder(model_type: str, prefix: str) -> Family:
    heads = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForPreTraining")
    return Family(model_type, "encoder", tuple(prefix + h for h in heads), f"{prefix}Model")


FAMILIES: Mapping[str, Family] = {
    f.model_type: f
    for f in (
        _decoder("llama", "LlamaForCausalLM"),
        _decoder("qwen3", "Qwen3ForCausalLM"),
        _decoder("gemma3_text", "Gemma3ForCausalLM"),
        _decoder("phi3", "Phi3ForCausalLM"),
        _decoder("gpt_neox", "GPTNeoXForCausalLM"),
        _decoder("mixtral", "MixtralForCausalLM"),
        _decoder("qwen3_moe", "Qwen3MoeForCausalLM"),
        _decoder("olmoe", "OlmoeForCausalLM"),
        _decoder("gpt_oss", "GptOssForCausalLM"),
        _decoder("deepseek_v3", "DeepseekV3ForCausalLM"),
        _encoder("bert", "Bert"),
        _encoder("modernbert", "ModernBert"),
    )
}


def find_family(config: Mapping[str, object], where: str) -> tuple[Family, str]:
    """The family of a config and its architecture name.

    Raises:
        CaptureError: model type or architecture missing or not supported; the message lists those that are.
    """
    model_type = config.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        what = "config.json has no model_type" if model_type is None else f"model type {model_type!r} is not supported"
        raise CaptureError(what, where=where, hint=f"supported: {', '.join(FAMILIES)}")
    listed = config.get("architectures")
    names = [n for n in listed if isinstance(n, str)] if isinstance(listed, list) else []
    name = names[0] if names else family.class_name
    if name not in family.architectures:
        raise CaptureError(
            f"architecture {name} is not supported", where=where,
            hint=f"{family.model_type} checkpoints must be {' or '.join(family.architectures)}",
        )  # fmt: skip
    return family, name
