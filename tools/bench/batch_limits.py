"""What batching can gain at most: bounds from the arithmetic of the requests and two probes of the machine.

Weights are read once a step. One by one, every token of an answer is a step of its own, bound by reading; together,
many tokens share a reading, and what is left is arithmetic. Prompts are arithmetic either way, so the more of the work
they are, the less there is to gain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fretsaw.tools.bench.models import flops_per_token


@dataclass(frozen=True)
class Bounds:
    """Least seconds of all requests by the probes: prompts, answers one by one, answers together."""

    prompts: float
    answers_alone: float
    answers_together: float

    @property
    def ratio(self) -> float:
        """The most that batching could gain over a runtime that is perfect one by one."""
        return (self.prompts + self.answers_alone) / (self.prompts + self.answers_together)


def bounds(
    config: Mapping[str, int], requests: Iterable[tuple[int, int]], fma_gflops: float, read_gb_s: float
) -> Bounds:
    """Bounds for (prompt, new) token counts of a dense Llama-like decoder in f32.

    The first new token comes with the prompt. ``flops_per_token(config, n)`` is the mean over a prompt of n, so a token
    at position p costs what the mean over 2p + 1 costs.
    """
    head_flops = 2 * config["hidden_size"] * config["vocab_size"]
    weights = 4 * (flops_per_token(config, -1) / 2 + config["hidden_size"] * config["vocab_size"])  # no attention
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    kv_token = 2 * 4 * config["num_hidden_layers"] * config["num_key_value_heads"] * size
    prompts = alone = together = 0.0
    for prompt, new in requests:
        prompts += (prompt * flops_per_token(config, prompt) + head_flops) / fma_gflops / 1e9
        for position in range(prompt, prompt + new - 1):
            flops = flops_per_token(config, 2 * position + 1) + head_flops
            arithmetic, cache = flops / fma_gflops / 1e9, position * kv_token / read_gb_s / 1e9
            alone += max(arithmetic, weights / read_gb_s / 1e9 + cache)
            together += max(arithmetic, cache)
    return Bounds(prompts, alone, together)
