"""Every method of sparse attention by its name."""

from __future__ import annotations

from collections.abc import Mapping

from fretsaw.passes.sparse import options
from fretsaw.passes.sparse.method import Method
from fretsaw.passes.sparse.methods import (
    auto,
    dense,
    dhsa,
    flex_prefill,
    hip,
    hyper_attention,
    infllm,
    infllm_v2,
    lambda_mask,
    longheads,
    masformer,
    mean_pool,
    minference,
    moa,
    plan,
    prism,
    quest,
    s2,
    seer_attention,
    tri_shape,
    triangle_mix,
    xattention,
)

MODULES = (
    dense, auto, plan, lambda_mask, tri_shape, triangle_mix, masformer, s2, xattention, mean_pool, prism, minference,
    flex_prefill, dhsa, quest, infllm_v2, moa, hip,
    infllm, longheads, hyper_attention, seer_attention,
)  # fmt: skip
METHODS: Mapping[str, Method] = {m.METHOD.name: m.METHOD for m in MODULES}

# Methods that a checkpoint has to be trained for, by layers of its own that no supported family has.
REFUSED: Mapping[str, str] = {
    "sea": "it needs a trained estimator in every layer (performer, MLP, CNN), and mixes learned averages of values in",
    "routing": "it needs centroids trained with the model, and its balanced clusters look at later tokens",
    "landmark": "it needs landmark tokens that the model was trained with, and a softmax of its own",
    "xl3m": "it rewrites prompts and changes no attention",
}

options.CHOICES.update(METHODS)
options.REFUSED.update(REFUSED)
