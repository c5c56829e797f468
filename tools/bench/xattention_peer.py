"""OpenVINO GenAI with its XAttention and without, one process: times or predictions on given ids, a JSON object a line.

Run by ``sparse_peers.py`` with the peers' own Python; it imports nothing of Fretsaw. Arithmetic and cache in f32.

- ``time``: its continuous batching pipeline, seconds from a prompt to its first token. The prompt is read in steps of
  ``--batch`` tokens; no prefix caching. ``num_last_dense_tokens_in_prefill`` is 0: with more, the step that holds the
  end of a prompt is dense, which with one step is all of it.
- ``kl``: the pipeline shows no logits of a prompt. The same model, made paged by the same transformation, is called
  with block tables made here, and cut before its output head, which torch applies in f32 to all positions: KL
  divergence from its own dense attention in nats, agreement of the most likely token, and negative log-likelihood of
  the text, over all positions but the last.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PAGE = 32  # positions in a block of the CPU plugin's cache
ROWS = 128  # of logits at once, compared in f64

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Setting:
    """One setting of XAttention; a threshold of None is dense attention.

    Args:
        block: Of the mask, in tokens.
        batch: Tokens of a step.
    """

    threshold: float | None
    block: int
    stride: int
    batch: int


def parse_setting(text: str) -> Setting:
    """``0.9:64:8:8192``, threshold, block, stride and batch; ``dense:512``: batch alone."""
    parts = text.split(":")
    if parts[0] == "dense":
        return Setting(None, 64, 8, int(parts[1]))
    return Setting(float(parts[0]), *(int(n) for n in parts[1:]))


def properties(threads: int) -> dict[str, object]:
    """Arithmetic, activations and cache in f32."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    }


class Pipeline:
    """OpenVINO GenAI as its users run it."""

    def __init__(self, gguf: Path, setting: Setting, threads: int) -> None:
        import openvino_genai as ovg

        config: Any = ovg.SchedulerConfig()
        config.cache_size, config.max_num_seqs = 2, 1
        config.max_num_batched_tokens = setting.batch
        config.dynamic_split_fuse, config.enable_prefix_caching = True, False
        if setting.threshold is not None:
            config.use_sparse_attention = True
            config.sparse_attention_config = ovg.SparseAttentionConfig(
                mode=ovg.SparseAttentionMode.XATTENTION,
                num_last_dense_tokens_in_prefill=0,
                xattention_threshold=setting.threshold,
                xattention_block_size=setting.block,
                xattention_stride=setting.stride,
            )
        self.pipe: Any = ovg.ContinuousBatchingPipeline(str(gguf), config, "CPU", properties(threads))
        self.count = 0

    def first_token(self, ids: Sequence[int]) -> float:
        """Seconds from a prompt to its first token."""
        import openvino as ov
        import openvino_genai as ovg

        options = ovg.GenerationConfig()
        options.max_new_tokens = options.min_new_tokens = 1
        options.ignore_eos, options.do_sample = True, False
        self.count += 1
        start = time.perf_counter()
        handle = self.pipe.add_request(self.count, ov.Tensor(np.array([ids], dtype=np.int64)), options)
        while self.pipe.has_non_finished_requests():
            self.pipe.step()
        seconds = time.perf_counter() - start
        assert len(handle.read_all()[0].generated_ids) == 1
        return seconds


class Paged:
    """The model with pages as inputs, one sequence, pages in order."""

    def __init__(self, gguf: Path, threads: int) -> None:
        import openvino as ov
        import openvino_genai as ovg
        from openvino._offline_transformations import paged_attention_transformation

        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / gguf.name
            link.symlink_to(gguf.resolve())
            ovg.LLMPipeline(str(link), "CPU", enable_save_ov_model=True)
            core: Any = ov.Core()
            model: Any = core.read_model(str(Path(folder) / "openvino_model.xml"))
            self.head = cut_head(model)
            paged_attention_transformation(model, allow_xattention=True)
            compiled: Any = core.compile_model(model, "CPU", properties(threads))
        self.request: Any = compiled.create_infer_request()
        self.caches = [i for i in compiled.inputs if "cache" in i.any_name]
        self.layers = len(self.caches) // 2

    def hidden(self, ids: Sequence[int], setting: Setting) -> tuple[Floats, float]:
        """What the output head reads, f32 [tokens, D], and seconds."""
        import openvino as ov

        pages = -(-len(ids) // PAGE)
        for cache in self.caches:
            _, heads, page, size = (d.get_length() if d.is_static else 0 for d in cache.partial_shape)
            assert page == PAGE, cache
            self.request.set_tensor(cache.any_name, ov.Tensor(ov.Type.f32, [pages, heads, page, size]))
        parts: list[Floats] = []
        seconds = 0.0
        for low in range(0, len(ids), setting.batch):
            high = min(len(ids), low + setting.batch)
            self._set(np.array(ids, dtype=np.int64), low, high, setting)
            start = time.perf_counter()
            self.request.infer()
            seconds += time.perf_counter() - start
            parts.append(self.request.get_output_tensor().data.reshape(high - low, -1).copy())
        return np.concatenate(parts), seconds

    def _set(self, ids: npt.NDArray[np.int64], low: int, high: int, setting: Setting) -> None:
        import openvino as ov

        pages = -(-high // PAGE)
        thresholds = [] if setting.threshold is None else [setting.threshold]
        inputs: dict[str, npt.NDArray[Any]] = {
            "input_ids": ids[low:high],
            "position_ids": np.arange(low, high, dtype=np.int64),
            "max_context_len": np.array(high, np.int32),
            "past_lens": np.array([low], np.int32),
            "subsequence_begins": np.array([0, high - low], np.int32),
            "block_indices": np.arange(pages, dtype=np.int32),
            "block_indices_begins": np.array([0, pages], np.int32),
            "xattention_block_size": np.array(setting.block, np.int32),
            "xattention_stride": np.array(setting.stride, np.int32),
        }
        inputs |= {f"xattention_threshold.{n}": np.array(thresholds, np.float32) for n in range(self.layers)}
        for name, array in inputs.items():
            self.request.set_tensor(name, ov.Tensor(np.require(array, requirements=("C", "O"))))


def cut_head(model: Any) -> Floats:
    """Make what the output head reads the result of ``model``; returns the head's weight, [V, D]."""
    (result,) = model.get_results()
    product = result.input_value(0).get_node()
    assert product.get_type_name() == "MatMul" and product.get_attributes()["transpose_b"], product
    weight = product.input_value(1).get_node()
    if weight.get_type_name() == "Convert":
        weight = weight.input_value(0).get_node()
    result.input(0).replace_source_output(product.input_value(0))
    model.validate_nodes_and_infer_types()
    head: Floats = weight.get_data().astype(np.float32)
    return head


def compare(ids: Sequence[int], head: Floats, dense: Floats, other: Floats) -> dict[str, float]:
    """Mean KL divergence of ``other`` from ``dense`` in nats, agreement of the most likely token, and both mean
    negative log-likelihoods, over all positions but the last.

    Args:
        head: [V, D].
        dense, other: [tokens, D], before the output head.
    """
    import torch

    kl = same = nll = dense_nll = 0.0
    count = len(ids) - 1
    weight = torch.from_numpy(head)
    for low in range(0, count, ROWS):
        high = min(count, low + ROWS)
        p, q = ((torch.from_numpy(x[low:high]) @ weight.T).double().log_softmax(-1) for x in (dense, other))
        following = torch.tensor(ids[low + 1 : high + 1])[:, None]
        kl += float((p.exp() * (p - q)).sum())
        same += float((p.argmax(-1) == q.argmax(-1)).sum())
        nll -= float(q.gather(1, following).sum())
        dense_nll -= float(p.gather(1, following).sum())
    return {"kl": kl / count, "top1": same / count, "nll": nll / count, "dense_nll": dense_nll / count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["time", "kl"])
    parser.add_argument("gguf", type=Path)
    parser.add_argument("ids", type=Path, help="JSON array of token ids")
    parser.add_argument("--settings", type=parse_setting, nargs="+", required=True, help="time: one")
    parser.add_argument("--lengths", type=int, nargs="+", help="time: tokens of prompts, the first of the ids")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    ids = json.loads(args.ids.read_text())
    if args.what == "time":
        (setting,) = args.settings
        pipeline = Pipeline(args.gguf, setting, args.threads)
        pipeline.first_token(ids[:512])  # thread pools, lazy initialization; as many as the other engine warms up with
        print(json.dumps({"seconds": {n: pipeline.first_token(ids[:n]) for n in args.lengths}}))
        return
    paged = Paged(args.gguf, args.threads)
    dense, seconds = paged.hidden(ids, Setting(None, 64, 8, len(ids)))
    for setting in args.settings:
        found, taken = paged.hidden(ids, setting)
        largest = float(np.abs(found - dense).max())
        scores = compare(ids, paged.head, dense, found)
        out = {"seconds": taken, "dense_seconds": seconds, "largest_difference": largest, **scores}
        print(json.dumps(out), flush=True)


if __name__ == "__main__":
    main()
