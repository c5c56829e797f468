"""Small random models of every supported family, with sizes and variants that catch what defaults would hide.

Head sizes differ from ``hidden_size / heads``, windows are shorter than test sequences, rope variants change
their frequencies inside test lengths, and weights are large enough for attention, routers and norms to
matter.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from transformers import PreTrainedModel

VOCAB = 320
Build = Callable[..., PreTrainedModel]
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip


def _init(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Weights of unit gain, norms around one, biases and sinks that are not zero."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter: torch.Tensor) -> torch.Tensor:
        return torch.randn(parameter.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight") and parameter.ndim == 1:
                base = 0.0 if model.config.model_type == "gemma3_text" else 1.0  # Gemma adds the one itself
                parameter.copy_(base + 0.2 * normal(parameter))
            elif parameter.ndim == 1 or name.endswith("_bias"):
                parameter.copy_(0.3 * normal(parameter))
            else:
                parameter.copy_(1.4 * normal(parameter) * parameter.shape[-1] ** -0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.copy_(0.2 * normal(buffer))
    return model.eval()


def llama(**changes: Any) -> PreTrainedModel:
    """Grouped heads of 20 features, which is not 48 / 4."""
    return _init(tf.LlamaForCausalLM(tf.LlamaConfig(**SMALL | {"head_dim": 20} | changes)))


def llama_llama3() -> PreTrainedModel:
    scaling = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32}  # fmt: skip
    return llama(rope_parameters=scaling, attention_bias=True)


def llama_linear() -> PreTrainedModel:
    return llama(rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 2.5}, mlp_bias=True)


def llama_yarn() -> PreTrainedModel:
    scaling = {
        "rope_type": "yarn",
        "rope_theta": 1000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    return llama(rope_parameters=scaling, tie_word_embeddings=True)


def llama_dynamic() -> PreTrainedModel:
    return llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 2.0})


def qwen3(**changes: Any) -> PreTrainedModel:
    """Norms on heads; the second layer has a window."""
    own = {"head_dim": 24, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}
    return _init(tf.Qwen3ForCausalLM(tf.Qwen3Config(**SMALL | own | changes)))


def gemma3(**changes: Any) -> PreTrainedModel:
    """Two windowed layers and a global one with its own theta; a head size and scale of its own."""
    own = {
        "head_dim": 20, "num_hidden_layers": 3, "sliding_window": 6, "query_pre_attn_scalar": 15,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                            "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    }  # fmt: skip
    return _init(tf.Gemma3ForCausalLM(tf.Gemma3TextConfig(**SMALL | own | changes)))


def phi3(**changes: Any) -> PreTrainedModel:
    """One projection for q, k, v; a window; a part of each head turns."""
    rope = {"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5}
    own = {"sliding_window": 9, "rope_parameters": rope, "original_max_position_embeddings": 128}
    return _init(tf.Phi3ForCausalLM(tf.Phi3Config(**SMALL | own | changes)))


def phi3_longrope() -> PreTrainedModel:
    """Context beyond the original one of 16 tokens: the long factors hold."""
    rope = {"rope_type": "longrope", "rope_theta": 1000.0, "partial_rotary_factor": 1.0,
            "short_factor": [1.0 + 0.1 * i for i in range(6)], "long_factor": [2.0 + 0.5 * i for i in
            range(6)], "original_max_position_embeddings": 16}  # fmt: skip
    return phi3(rope_parameters=rope, original_max_position_embeddings=16, sliding_window=None)


def gpt_neox(**changes: Any) -> PreTrainedModel:
    """Parallel residual, biases everywhere, a quarter of each head turns."""
    own = {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.34}}
    config = {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
    return _init(tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**config | own | changes)))


def gpt_neox_sequential() -> PreTrainedModel:
    return gpt_neox(use_parallel_residual=False, hidden_act="gelu_new")


def mixtral(**changes: Any) -> PreTrainedModel:
    """Eleven experts, so that expert 10 must not be sorted before expert 2; a window."""
    own = {"num_local_experts": 11, "num_experts_per_tok": 2, "sliding_window": 8, "head_dim": 16}
    return _init(tf.MixtralForCausalLM(tf.MixtralConfig(**SMALL | own | changes)))


def qwen3_moe(**changes: Any) -> PreTrainedModel:
    """The first layer is dense; weights of the chosen experts are normalized."""
    own = {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 28, "head_dim": 24,
           "mlp_only_layers": [0], "num_hidden_layers": 3, "norm_topk_prob": True}  # fmt: skip
    return _init(tf.Qwen3MoeForCausalLM(tf.Qwen3MoeConfig(**SMALL | own | changes)))


def olmoe(**changes: Any) -> PreTrainedModel:
    """Norms over the whole projection; weights not normalized; queries clipped."""
    own = {"num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": False, "clip_qkv": 0.8}
    return _init(tf.OlmoeForCausalLM(tf.OlmoeConfig(**SMALL | own | changes)))


def gpt_oss(**changes: Any) -> PreTrainedModel:
    """Attention sinks, alternating windows, YaRN, experts with biases and a clamped interleaved gate."""
    rope = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "truncate": False,
            "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 32}  # fmt: skip
    own = {"num_local_experts": 5, "num_experts_per_tok": 2, "head_dim": 16, "sliding_window": 5,
           "rope_parameters": rope, "swiglu_limit": 0.9}  # fmt: skip
    return _init(tf.GptOssForCausalLM(tf.GptOssConfig(**SMALL | own | changes)))


def deepseek_v3(**changes: Any) -> PreTrainedModel:
    """Latent attention, values narrower than keys, a dense layer, a router in groups with a learned bias."""
    rope = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "mscale": 1.0, "mscale_all_dim": 0.5,
            "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 32}  # fmt: skip
    own = {"num_key_value_heads": 4, "moe_intermediate_size": 28, "n_routed_experts": 8,
           "num_experts_per_tok": 3,
           "n_group": 4, "topk_group": 2, "q_lora_rank": 20, "kv_lora_rank": 12, "qk_rope_head_dim": 8,
           "qk_nope_head_dim": 12, "v_head_dim": 10, "first_k_dense_replace": 1, "n_shared_experts": 2,
           "rope_parameters": rope}  # fmt: skip
    return _init(tf.DeepseekV3ForCausalLM(tf.DeepseekV3Config(**SMALL | own | changes)))


def deepseek_v3_plain() -> PreTrainedModel:
    """Queries without a latent, rotary pairs in halves, every layer a mixture."""
    return deepseek_v3(q_lora_rank=None, rope_interleave=False, first_k_dense_replace=0, attention_bias=True)


def bert(**changes: Any) -> PreTrainedModel:
    own = {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
    return _init(tf.BertModel(tf.BertConfig(**own | changes)))


def bert_masked_lm() -> PreTrainedModel:
    """A checkpoint with a head and the prefix ``bert.``; the encoder inside is what is captured."""
    own = {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
    return _init(tf.BertForMaskedLM(tf.BertConfig(**own)))


def modernbert(**changes: Any) -> PreTrainedModel:
    """A global layer, then two with 4 tokens to each side; two thetas."""
    own = {k: v for k, v in SMALL.items() if k != "num_key_value_heads"}
    own |= {"num_hidden_layers": 3, "local_attention": 8, "global_attn_every_n_layers": 3}
    rope = {"full_attention": {"rope_type": "default", "rope_theta": 1000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}  # fmt: skip
    layers = ["full_attention", "sliding_attention", "sliding_attention"]
    own |= {"rope_parameters": rope, "layer_types": layers, "cls_token_id": 1, "sep_token_id": 2}
    return _init(tf.ModernBertModel(tf.ModernBertConfig(**own | changes)))


BUILDERS: dict[str, Build] = {
    f.__name__: f
    for f in (
        llama, llama_llama3, llama_linear, llama_yarn, llama_dynamic, qwen3, gemma3, phi3, phi3_longrope,
        gpt_neox, gpt_neox_sequential, mixtral, qwen3_moe, olmoe, gpt_oss, deepseek_v3, deepseek_v3_plain,
        bert, bert_masked_lm, modernbert,
    )
}  # fmt: skip
DECODERS = tuple(n for n in BUILDERS if "bert" not in n)
ENCODERS = tuple(n for n in BUILDERS if "bert" in n)


def save(name: str, directory: Path, dtype: torch.dtype = torch.float32, **options: Any) -> PreTrainedModel:
    """Write the model to ``directory`` as a checkpoint; return it in f32 with the values written."""
    model = BUILDERS[name]()
    for parameter in model.parameters():  # not model.to(): that would round the rotary frequencies too
        parameter.data = parameter.data.to(dtype)
    model.save_pretrained(directory, **options)
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    return model


def reference(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """transformers' own eager result: logits [B, S, V], or hidden states [B, S, D] of an encoder."""
    inner = getattr(model, "bert", model) if isinstance(model, tf.BertForMaskedLM) else model
    inner.set_attn_implementation("eager")
    with torch.no_grad():
        out: torch.Tensor = inner(input_ids=ids)[0]
    return out
