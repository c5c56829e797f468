"""What sparse attention costs in predictions and gains in time: methods and settings on one model and one long text.

    python -m fretsaw.tools.bench.sparse_frontier CHECKPOINT --text TEXT --work DIR [--only NAME,...] [--json FILE]
        [--plot docs/img/sparse_frontier.svg] [--steps compile,survey,eval,bench,report]

Steps, each resumed where it stopped (everything is kept in DIR):

    compile  an artifact for every setting, and a dense one for each size of step that a setting needs
    survey   density, kept softmax mass and error of every setting, on dense activations, by the reference interpreter
    eval     KL divergence and agreement with the dense artifact, `fretsaw eval`
    bench    time to the first token over the dense one's, `fretsaw bench`: processes apart, interleaved
    report   table, JSON, plot
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fretsaw.tools.sparse.plot import Series, scatter

CONTEXT, CHUNK = 8192, 512


@dataclass(frozen=True)
class Setting:
    """One setting of one method.

    Args:
        chunk: Tokens of a step; a whole prompt for methods that score with its last queries.
    """

    name: str
    options: str
    chunk: int = CHUNK

    @property
    def method(self) -> str:
        return self.options.split(",")[0]

    def given(self) -> dict[str, object]:
        """Options as the pass takes them."""
        from fretsaw.passes.kit.options import parse_assignments

        return dict(parse_assignments(f"method={self.options}"))


SETTINGS = (
    *(Setting(f"lambda_{w}", f"lambda_mask,sink=64,window={w}") for w in (512, 1024, 2048, 4096)),
    *(Setting(f"tri_shape_{w}", f"tri_shape,sink=128,window={w}", CONTEXT) for w in (1024, 2048)),
    *(Setting(f"xattention_{t}", f"xattention,stride=8,threshold=0.{t}") for t in (6, 7, 8, 9, 95)),
    *(Setting(f"xattention16_{t}", f"xattention,stride=16,threshold=0.{t}") for t in (7, 8, 9)),
    *(Setting(f"mean_pool_{d}", f"mean_pool,density=0.{d}") for d in ("1", "25", "5")),
    *(Setting(f"prism_{p}", f"prism,p=0.{p}") for p in (8, 9, 95)),
    *(Setting(f"flex_{g}", f"flex_prefill,gamma=0.{g}", CONTEXT) for g in (8, 9, 95)),
    *(Setting(f"minference_{v}", f"minference,vertical={v},slash={s}", CONTEXT) for v, s in ((250, 750), (1000, 2000))),
    *(Setting(f"moa_{b}", f"moa,alpha=512,beta={b}") for b in (0.125, 0.25, 0.5)),
)  # fmt: skip


def run(*args: str | Path, timeout: float = 3600) -> str:
    """The ``fretsaw`` command; its output.

    Raises:
        SystemExit: it failed; with what it said.
    """
    command = [sys.executable, "-m", "fretsaw.tools.cli", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


class Work:
    """Artifacts and results in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def artifact(self, name: str) -> Path:
        return self.folder / f"{name}.fsaw"

    def dense(self, chunk: int) -> Path:
        return self.artifact(f"dense_{chunk}")

    def load(self, step: str) -> dict[str, Any]:
        path = self.folder / f"{step}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def save(self, step: str, data: Mapping[str, Any]) -> None:
        (self.folder / f"{step}.json").write_text(json.dumps(data, indent=1) + "\n")


def compile_all(work: Work, checkpoint: Path, settings: tuple[Setting, ...], cpu: str) -> None:
    """Artifacts that are not there yet, unchecked: eval measures them on more tokens than a check would."""
    common = ("--no-check", "--quiet", "--cpu", cpu)
    for chunk in sorted({s.chunk for s in settings}):
        if not work.dense(chunk).exists():
            run("compile", checkpoint, "-o", work.dense(chunk), "--chunk", str(chunk), *common)
    for s in settings:
        if not work.artifact(s.name).exists():
            ask = f"sparse_attention:method={s.options}"
            start = time.time()
            run("compile", checkpoint, "-o", work.artifact(s.name), "--chunk", str(s.chunk), "--pass", ask, *common)
            print(f"compiled {s.name} in {time.time() - start:.0f} s", flush=True)


def survey_all(work: Work, checkpoint: Path, text: Path, settings: tuple[Setting, ...], tokens: int) -> None:
    """Densities, masses and errors of all settings on dense activations, in one run of the dense model."""
    import numpy as np
    from tokenizers import Tokenizer

    from fretsaw.frontend.capture import capture
    from fretsaw.frontend.checkpoint import load_checkpoint
    from fretsaw.passes.evidence.feeds import Sequence
    from fretsaw.passes.pipeline import run_pipeline
    from fretsaw.passes.sparse.calibrate.survey import survey
    from fretsaw.passes.sparse.options import Sparse
    from fretsaw.passes.sparse.sparse_attention import sparse_attention

    known = work.load("survey")
    left = tuple(s for s in settings if s.name not in known)
    if not left:
        return
    loaded = load_checkpoint(checkpoint)
    assert loaded.tokenizer_json is not None
    ids = Tokenizer.from_str(loaded.tokenizer_json.decode()).encode(text.read_text(encoding="utf-8")).ids[:tokens]
    made = [sparse_attention.configured(s.given()).options for s in left]
    ways = [m for m in made if isinstance(m, Sparse)]
    graph = run_pipeline(capture(loaded)).graph
    read = Sequence("survey", np.array(ids), text.name, 0)
    found = survey(graph, ways, read, 0, lambda note: print(note, flush=True))
    for c, s in enumerate(left):
        layers = list(found.layers.values())
        losses = [layer.losses[c] for layer in layers]
        heads = [h for row in losses if row is not None for h in row]
        density = np.mean([1.0 if row is None else float(np.mean([h.density for h in row])) for row in losses])
        choosing = float(np.mean([x.selection[c] for x in layers]))
        known[s.name] = {
            "tokens": len(ids), "density": float(density), "selection": choosing,
            "retained_mass": float(np.mean([h.mass for h in heads])), "error": float(np.mean([h.error for h in heads])),
        }  # fmt: skip
    work.save("survey", known)


def eval_all(work: Work, text: Path, settings: tuple[Setting, ...], windows: int, context: int) -> None:
    """KL divergence and agreement of every setting."""
    known = work.load("eval")
    for s in settings:
        if s.name in known:
            continue
        out = run(
            "eval", work.artifact(s.name), "--text", text, "--context", str(context), "--limit", str(windows),
            "--against", work.dense(s.chunk), "--json",
        )  # fmt: skip
        known[s.name] = json.loads(out)
        work.save("eval", known)
        print(f"{s.name}: KL {known[s.name]['kl_mean']:.4g}, top-1 {known[s.name]['top1_agreement']:.4f}", flush=True)


def bench_all(work: Work, text: Path, settings: tuple[Setting, ...], tokens: int, rounds: int) -> None:
    """Time to the first token of a prompt, over that of the dense artifact with steps of the same size."""
    known = work.load("bench")
    for s in settings:
        if s.name in known:
            continue
        out = run(
            "bench", work.artifact(s.name), "--against", work.dense(s.chunk), "--prefill", str(tokens), "--decode", "0",
            "--rounds", str(rounds), "--text", text, "--threads", "2", "--json",
        )  # fmt: skip
        known[s.name] = json.loads(out)
        work.save("bench", known)
        print(f"{s.name}: {ratio(known[s.name]):.3f} of the dense time", flush=True)


def ratio(bench: Mapping[str, Any]) -> float:
    """Time to the first token over the dense one's: the median of the rounds' ratios."""
    (found,) = bench["prefill"]
    return 1 / float(found["speedup"])


def report(work: Work, settings: tuple[Setting, ...], plot: Path | None, out: Path | None) -> None:
    """Table on the screen, JSON and plot in files."""
    evals, benches, surveys = (work.load(step) for step in ("eval", "bench", "survey"))
    rows: list[dict[str, Any]] = []
    for s in settings:
        row: dict[str, Any] = {"name": s.name, "options": s.options, "chunk": s.chunk, **surveys.get(s.name, {})}
        if s.name in evals:
            row |= {"kl": evals[s.name]["kl_mean"], "kl_p99": evals[s.name]["kl_p99"]}
            row |= {"top1": evals[s.name]["top1_agreement"]}
        if s.name in benches:
            row["time"] = ratio(benches[s.name])
        rows.append(row)
    print(f"{'setting':<18}{'density':>9}{'mass':>8}{'error':>8}{'KL':>10}{'top-1':>8}{'time':>8}")
    for row in rows:
        cells = [(row.get(k), w, f) for k, w, f in (
            ("density", 9, ".3f"), ("retained_mass", 8, ".4f"), ("error", 8, ".4f"), ("kl", 10, ".3g"),
            ("top1", 8, ".4f"), ("time", 8, ".3f"),
        )]  # fmt: skip
        print(f"{row['name']:<18}" + "".join(f"{'-':>{w}}" if v is None else f"{v:>{w}{f}}" for v, w, f in cells))
    if out is not None:
        out.write_text(json.dumps({"context": CONTEXT, "settings": rows}, indent=1) + "\n")
    axis, label = ("time", "time to first token over dense") if benches else ("density", "density")
    shown = [r for r in rows if "kl" in r and axis in r]
    if plot is not None and shown:
        names = list(dict.fromkeys(r["options"].split(",")[0] for r in shown))
        series = [
            Series(n, tuple((r[axis], max(r["kl"], 1e-8), "") for r in shown if r["options"].split(",")[0] == n))
            for n in names
        ]
        title = f"Sparse prefill of {CONTEXT} tokens: divergence from the dense model"
        plot.write_text(scatter(series, title, label, "mean KL divergence, nats a token"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="", help="names of settings, or beginnings of them")
    parser.add_argument("--steps", default="compile,survey,eval,bench,report")
    parser.add_argument("--cpu", default="x86-64-v3")
    parser.add_argument("--windows", type=int, default=2, help="of text, to evaluate")
    parser.add_argument("--context", type=int, default=CONTEXT, help="tokens of a window")
    parser.add_argument("--tokens", type=int, default=8000, help="of a prompt, to time and to survey")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, dest="out")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    only = tuple(filter(None, given.only.split(",")))
    settings = tuple(s for s in SETTINGS if not only or s.name.startswith(only))
    work = Work(given.work)
    steps = given.steps.split(",")
    if "compile" in steps:
        compile_all(work, given.checkpoint, settings, given.cpu)
    if "survey" in steps:
        survey_all(work, given.checkpoint, given.text, settings, given.tokens)
    if "eval" in steps:
        eval_all(work, given.text, settings, given.windows, given.context)
    if "bench" in steps:
        bench_all(work, given.text, settings, given.tokens, given.rounds)
    if "report" in steps:
        report(work, settings, given.plot, given.out)


if __name__ == "__main__":
    main()
