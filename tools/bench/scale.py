"""How the cost of canonicalizing grows with the number of layers. Weights are holes in a file: nothing is ever loaded.

    python -m fretsaw.tools.bench.scale [--llama 4,8,16,32,64] [--moe 4,12,24,48,94] [--json out.json] [--svg out.svg]

For every size a directory is written with a config.json (Llama-3.1-8B's, Qwen3-235B-A22B's, with another number of
layers) and a safetensors file with a true header and a hole where the data would be. It is captured like any other,
then the passes of phase ``canonical`` run, without checks. Every size has a process of its own, so that its memory is
its own: ``growth`` is the peak of resident memory less what the process had after its imports, and so has the capture
in it; ``peak`` counts the imports too. The line is fitted to the processor's time, which others on the machine disturb
less than the clock on the wall.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from fretsaw.tools.bench.scale_plot import fit, plot

LLAMA: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072, "tie_word_embeddings": False, "rope_theta": 500000.0, "hidden_act": "silu",
}  # fmt: skip
MOE: dict[str, object] = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": 4096,
    "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "rms_norm_eps": 1e-6,
    "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 1536, "intermediate_size": 12288,
    "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [], "max_position_embeddings": 40960,
    "tie_word_embeddings": False, "rope_theta": 1000000.0, "hidden_act": "silu",
}  # fmt: skip
MODELS: Mapping[str, dict[str, object]] = {"llama": LLAMA, "moe": MOE}


def tensors(config: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the checkpoint's tensors, as the published checkpoints have them."""
    n = {k: v for k, v in config.items() if isinstance(v, int)}
    d, e = n["hidden_size"], n["head_dim"]
    q, kv = n["num_attention_heads"] * e, n["num_key_value_heads"] * e
    out: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (n["vocab_size"], d), "model.norm.weight": (d,),
        "lm_head.weight": (n["vocab_size"], d),
    }  # fmt: skip
    for i in range(n["num_hidden_layers"]):
        at = f"model.layers.{i}."
        out |= {f"{at}input_layernorm.weight": (d,), f"{at}post_attention_layernorm.weight": (d,)}
        out |= {f"{at}self_attn.q_proj.weight": (q, d), f"{at}self_attn.o_proj.weight": (d, q)}
        out |= {f"{at}self_attn.{p}_proj.weight": (kv, d) for p in "kv"}
        if "num_experts" not in n:
            out |= _gated(f"{at}mlp.", d, n["intermediate_size"])
            continue
        out |= {f"{at}self_attn.{p}_norm.weight": (e,) for p in "qk"} | {f"{at}mlp.gate.weight": (n["num_experts"], d)}
        for j in range(n["num_experts"]):
            out |= _gated(f"{at}mlp.experts.{j}.", d, n["moe_intermediate_size"])
    return out


def _gated(at: str, d: int, f: int) -> dict[str, tuple[int, ...]]:
    return {f"{at}gate_proj.weight": (f, d), f"{at}up_proj.weight": (f, d), f"{at}down_proj.weight": (d, f)}


def write_hollow(folder: Path, config: Mapping[str, object]) -> int:
    """A checkpoint in bf16 whose weights are one hole in ``model.safetensors``; returns their size in bytes."""
    header, at = {}, 0
    for name, shape in tensors(config).items():
        size = 2
        for dim in shape:
            size *= dim
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + at)
    (folder / "config.json").write_text(json.dumps(config))
    return at


def resident() -> int:
    """Peak resident memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(name: str, layers: int) -> dict[str, float]:
    """Capture and canonicalize one size in this process."""
    from fretsaw.frontend.capture import capture
    from fretsaw.frontend.checkpoint import load_checkpoint
    from fretsaw.ir import to_text
    from fretsaw.passes.pipeline import run_pipeline

    imports = resident()
    with tempfile.TemporaryDirectory() as folder:
        weights = write_hollow(Path(folder), MODELS[name] | {"num_hidden_layers": layers})
        start = time.perf_counter()
        graph = capture(load_checkpoint(Path(folder)))
        captured, capture_peak, cpu = time.perf_counter(), resident(), time.process_time()
        result = run_pipeline(graph, ("canonical",))
        done, peak, cpu = time.perf_counter(), resident(), time.process_time() - cpu
        text = to_text(result.graph)
        printed = time.perf_counter()
    return {
        "layers": layers, "weights_gb": weights / 1e9, "nodes_before": len(graph.nodes),
        "nodes_after": len(result.graph.nodes), "capture_s": captured - start, "canonical_s": done - captured,
        "canonical_cpu_s": cpu,
        "print_s": printed - done, "text_mb": len(text) / 1e6, "imports_mib": imports,
        "growth_mib": peak - imports, "growth_canonical_mib": peak - capture_peak, "peak_mib": peak,
    }  # fmt: skip


def main() -> int:
    """Measure every size in a process of its own; write numbers and plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--llama", default="4,8,16,32,64")
    parser.add_argument("--moe", default="4,12,24,48,94")
    parser.add_argument("--one", nargs=2, metavar=("MODEL", "LAYERS"), help="measure one size here, print JSON")
    parser.add_argument("--read", nargs="*", type=Path, default=[], help="results of earlier runs, to plot with these")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return 0
    found: dict[str, list[dict[str, float]]] = {}
    for path in options.read:
        for name, rows in json.loads(path.read_text()).items():
            found[name] = [*found.get(name, []), *rows]
    for name in MODELS:
        for layers in filter(None, getattr(options, name).split(",")):
            command = [sys.executable, "-m", "fretsaw.tools.bench.scale", "--one", name, layers]
            row = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
            found[name] = sorted([*found.get(name, []), row], key=lambda r: r["layers"])
            if options.json:
                options.json.write_text(json.dumps(found, indent=1) + "\n")
            print(name, "  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
    for name, rows in found.items():
        slope, base, r2 = fit([r["layers"] for r in rows], [r["canonical_cpu_s"] for r in rows])
        print(f"{name}: canonical_cpu_s = {base:.3f} + {slope:.4f} * layers, R2 = {r2:.4f}")
    if options.svg:
        options.svg.write_text(plot(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
