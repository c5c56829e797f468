"""Does the artifact generate what transformers generates? Greedy, f32, 20 varied prompts, 64 new tokens each.

    python -m fretsaw.tools.bench.same_tokens --artifact smollm2.fsaw --checkpoint DIR [--json out.json]

Ids are compared with transformers' own ``generate``. Where the first difference is a near tie (transformers' top two
logits within 1e-4), either choice is rounding; it is counted apart. Exit code 1 when any other difference is found.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fretsaw.tools.native import native_file

NEAR_TIE = 1e-4
SHORT = (
    "Hi",
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "#include <stdio.h>\n\nint main(void) {\n",
    "SELECT name, COUNT(*) FROM orders WHERE",
    "Die Hauptstadt von Deutschland ist",
    "Le chat est assis sur",
    "El perro corre por el parque y",
    "La ricetta della pasta al pomodoro:",
    "日本の首都は",
    "Москва — это",
    "1, 1, 2, 3, 5, 8,",
    '{"name": "Ada", "born": 1815, "field":',
    "<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is a tensor?<|im_end|>\n<|im_start|>assistant\n",
)
LONG_TOKENS = (100, 500, 1000, 2000)
FILLER = "The {a} compiler reads {b} files, checks chapter {i} of the manual, and writes {c} lines of code. "
WORDS = ("small", "green", "loud", "careful", "third", "broken", "sunny", "distant", "patient", "square", "early")


def prompts(tokenizer: Any) -> list[list[int]]:
    """The 20 prompts as token ids: 16 short texts and 4 long ones of up to 2,000 tokens."""
    out = [tokenizer(text)["input_ids"] for text in SHORT]
    n = len(WORDS)
    filler = "".join(FILLER.format(a=WORDS[i % n], b=WORDS[i * 3 % n], c=WORDS[i * 7 % n], i=i) for i in range(200))
    ids = tokenizer(filler)["input_ids"]
    return [*out, *(ids[:count] for count in LONG_TOKENS)]


def ours(artifact: Path, ids: list[int], count: int, threads: int) -> list[int]:
    """New ids from fretsaw-run."""
    command = [str(native_file("fretsaw-run")), str(artifact), "--ids", ",".join(map(str, ids)), "--json"]
    command += ["--max-new-tokens", str(count), "--temperature", "0", "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tokens: list[int] = json.loads(done.stdout)["tokens"]
    return tokens


def theirs(model: Any, ids: list[int], count: int) -> tuple[list[int], list[float]]:
    """New ids from transformers, with the gap between the top two logits at each."""
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=count,
            do_sample=False, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
    tops = [step[0].topk(2).values for step in out.logits]
    return out.sequences[0, len(ids) :].tolist(), [float(t[0] - t[1]) for t in tops]


def compare(mine: list[int], want: list[int], gaps: list[float]) -> tuple[str, int]:
    """("same" | "near tie" | "DIFFERENT", index of the first difference or the length)."""
    if mine == want:
        return "same", len(want)
    at = next((i for i, (a, b) in enumerate(zip(mine, want, strict=False)) if a != b), min(len(mine), len(want)))
    return ("near tie" if at < len(gaps) and gaps[at] < NEAR_TIE else "DIFFERENT"), at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)
    model = AutoModelForCausalLM.from_pretrained(args.checkpoint, dtype=torch.float32)
    rows = []
    for i, ids in enumerate(prompts(tokenizer)):
        mine = ours(args.artifact, ids, args.new_tokens, args.threads)
        want, gaps = theirs(model, ids, args.new_tokens)
        verdict, at = compare(mine, want, gaps)
        rows.append({"prompt": i, "prompt_tokens": len(ids), "new_tokens": len(want), "verdict": verdict, "at": at})
        print(f"{i:2}  {len(ids):5} prompt tokens  {len(want):3} new  {verdict} at {at}", flush=True)
    counts = {v: sum(r["verdict"] == v for r in rows) for v in ("same", "near tie", "DIFFERENT")}
    print(", ".join(f"{n} {v}" for v, n in counts.items()))
    if args.json:
        args.json.write_text(json.dumps({"prompts": rows, "counts": counts}, indent=1) + "\n")
    sys.exit(1 if counts["DIFFERENT"] else 0)


if __name__ == "__main__":
    main()
