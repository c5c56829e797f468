"""One peer, one process: load an encoder, warm up, embed texts or ids, print one JSON object, write the vectors.

Run by ``encoders.py`` with the peers' own Python; it imports nothing of Fretsaw. ``export`` writes the ONNX models:
plain for OpenVINO, and as ONNX Runtime's transformer optimizer leaves it for ONNX Runtime. Batches are padded to their
own longest text; ``sorted`` orders all texts by length first, which a service that answers as texts come cannot do.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Padded = tuple[np.ndarray, np.ndarray]  # ids and mask, i64 [B, S]
Encoder = Callable[[Sequence[Padded]], list[np.ndarray]]  # vectors [B, D] of each batch
MAX_TOKENS = "sentence_bert_config.json"


def export(model: Path, out: Path) -> None:
    """Hidden states, mean over the mask, length one, in one graph; then the optimizer's fusions."""
    import torch
    from onnxruntime.transformers import optimizer
    from transformers import BertModel

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = BertModel.from_pretrained(model, add_pooling_layer=False, attn_implementation="eager")

        def forward(self, ids: Any, mask: Any) -> Any:
            hidden = self.net(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids))[0]
            weight = mask.unsqueeze(-1).to(hidden.dtype)
            return torch.nn.functional.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)

    net = Pooled().eval()
    example = (torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64))
    axes = {"ids": {0: "b", 1: "s"}, "mask": {0: "b", 1: "s"}, "vectors": {0: "b"}}
    plain = out / "plain.onnx"
    torch.onnx.export(
        net, example, str(plain), input_names=["ids", "mask"], output_names=["vectors"], dynamic_axes=axes,
        opset_version=17, dynamo=False,
    )  # fmt: skip
    config = net.net.config
    fused = optimizer.optimize_model(
        str(plain), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=1
    )
    fused.save_model_to_file(str(out / "fused.onnx"))
    (out / "fusions.json").write_text(json.dumps(fused.get_fused_operator_statistics()))


def onnxruntime(model: Path, threads: int) -> Encoder:
    """The optimized graph, with all of the session's own optimizations on top."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(model / "fused.onnx"), options, providers=["CPUExecutionProvider"])
    return lambda batches: [session.run(None, {"ids": ids, "mask": mask})[0] for ids, mask in batches]


def openvino(model: Path, threads: int) -> Encoder:
    """f32, one stream with all threads."""
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    compiled = ov.Core().compile_model(str(model / "plain.onnx"), "CPU", settings)
    request = compiled.create_infer_request()
    return lambda batches: [request.infer([ids, mask])[compiled.output(0)].copy() for ids, mask in batches]


def torch_engine(model: Path, threads: int) -> Encoder:
    """transformers in f32 with its own choice of attention."""
    import torch
    from transformers import BertModel

    torch.set_num_threads(threads)
    net: Any = BertModel.from_pretrained(model, add_pooling_layer=False).eval()

    def run(batches: Sequence[Padded]) -> list[np.ndarray]:
        out = []
        with torch.inference_mode():
            for ids, mask in batches:
                hidden = net(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))[0]
                weight = torch.tensor(mask).unsqueeze(-1).float()
                mean = (hidden * weight).sum(1) / weight.sum(1)
                out.append(torch.nn.functional.normalize(mean, dim=-1).numpy())
        return out

    return run


ENGINES: dict[str, Callable[[Path, int], Encoder]] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "torch": torch_engine,
}


def batches_of(ids: Sequence[Sequence[int]], order: Sequence[int], size: int) -> list[Padded]:
    """Batches of ``size`` texts in this order, each padded to its longest."""
    out = []
    for start in range(0, len(order), size):
        texts = [ids[i] for i in order[start : start + size]]
        padded = np.zeros((len(texts), max(map(len, texts))), np.int64)
        mask = np.zeros_like(padded)
        for i, text in enumerate(texts):
            padded[i, : len(text)], mask[i, : len(text)] = text, 1
        out.append((padded, mask))
    return out


def sentence_transformers(args: argparse.Namespace, texts: Sequence[str]) -> tuple[np.ndarray, float, float]:
    """``encode`` sorts by length itself; its tokenization cannot be told apart."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(args.threads)
    model = SentenceTransformer(str(args.model), device="cpu")
    model.encode(list(texts[: args.batch]), batch_size=args.batch)
    start = time.perf_counter()
    vectors = model.encode(list(texts), batch_size=args.batch, show_progress_bar=False)
    total = time.perf_counter() - start
    return np.asarray(vectors), total, total


def timed(args: argparse.Namespace, texts: Sequence[Any]) -> tuple[np.ndarray, float, float]:
    """(vectors in the order of the texts, seconds with tokenization, seconds without)."""
    encode = ENGINES[args.engine](args.onnx if args.engine in ("onnxruntime", "openvino") else args.model, args.threads)
    tokenizer: Any = None
    if isinstance(texts[0], str):
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(json.loads((args.model / MAX_TOKENS).read_text())["max_seq_length"])

    def once(some: Sequence[Any]) -> tuple[np.ndarray, float, float]:
        start = time.perf_counter()
        ids = [e.ids for e in tokenizer.encode_batch(list(some))] if tokenizer else list(some)
        tokenized = time.perf_counter()
        order = list(range(len(ids)))
        if args.order == "sorted":
            order.sort(key=lambda i: -len(ids[i]))
        vectors = np.concatenate(encode(batches_of(ids, order, args.batch)))
        end = time.perf_counter()
        return vectors[np.argsort(order)], end - start, end - tokenized

    once(texts[: args.batch])
    return once(texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("engine", choices=["export", "sentence-transformers", *ENGINES])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--onnx", type=Path)
    parser.add_argument("--texts", type=Path, help="JSON: a list of texts, or of lists of ids")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--order", choices=["sorted", "unsorted"], default="sorted")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.engine == "export":
        return export(args.model, args.onnx)
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)  # of the tokenizer
    texts = json.loads(args.texts.read_text())
    run = sentence_transformers if args.engine == "sentence-transformers" else timed
    vectors, total, encode = run(args, texts)
    np.save(args.out, vectors.astype(np.float32))
    print(json.dumps({"total_s": total, "encode_s": encode}))
    return None


if __name__ == "__main__":
    main()
