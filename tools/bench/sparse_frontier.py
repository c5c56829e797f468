"""What sparse attention costs in predictions and gains in time: methods and settings on one model and one long text.

    python -m fretsaw.tools.bench.sparse_frontier CHECKPOINT --text TEXT --work DIR [--only NAME,...] [--json FILE]
        [--plan NAME=FILE ...] [--plot docs/img/sparse_frontier.svg] [--steps compile,eval,bench,passkey,survey,report]

Steps, taken setting by setting and resumed where they stopped (everything is kept in DIR; settings are those of
sparse_settings.py and the plans that are given):

    compile  an artifact for every setting, and a dense one for each size of step that a setting needs
    survey   density, kept softmax mass and error of every setting, on dense activations, by the reference interpreter
    eval     KL divergence and agreement with the dense artifact, `fretsaw eval`
    bench    time to the first token over the dense one's, `fretsaw bench`: processes apart, interleaved
    passkey  a number hidden in prompts of 4,096 and 8,000 tokens, `fretsaw eval --passkey`, for the dense one too
    report   table, JSON, plot
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fretsaw.passes.sparse.calibrate.plot import Series, scatter
from fretsaw.tools.bench.sparse_settings import SETTINGS, Setting

PASSKEY = ("--lengths", "4096,8000", "--depths", "0,50,100", "--trials", "1")  # shorter prompts are dense


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
            "bench", work.artifact(s.name), "--against", work.dense(s.chunk), "--prefill", str(tokens), "--decode", "8",
            "--rounds", str(rounds), "--text", text, "--threads", "2", "--json",
        )  # fmt: skip
        known[s.name] = json.loads(out)
        work.save("bench", known)
        print(f"{s.name}: {ratio(known[s.name]):.3f} of the dense time", flush=True)


def passkey_all(work: Work, settings: tuple[Setting, ...]) -> None:
    """How often, and how surely, the hidden number is found: of the dense model once, and of every setting."""
    known = work.load("passkey")
    paths = {"dense": work.dense(settings[0].chunk)} | {s.name: work.artifact(s.name) for s in settings}
    for name, path in paths.items():
        if name in known:
            continue
        (known[name],) = json.loads(run("eval", path, "--passkey", *PASSKEY, "--threads", "2", "--json"))[
            "passkey"
        ].values()
        work.save("passkey", known)
        print(f"{name}: passkey {known[name]['exact']:.0%}, {known[name]['nll']:.3g} nats", flush=True)


def ratio(bench: Mapping[str, Any]) -> float:
    """Time to the first token over the dense one's: the median of the rounds' ratios."""
    (found,) = bench["prefill"]
    return 1 / float(found["speedup"])


def report(work: Work, settings: tuple[Setting, ...], plot: Path | None, out: Path | None) -> None:
    """Table on the screen, JSON and plot in files."""
    evals, benches, surveys, keys = (work.load(step) for step in ("eval", "bench", "survey", "passkey"))
    rows: list[dict[str, Any]] = []
    if "dense" in keys:
        rows.append({"name": "dense", "options": "dense", "time": 1.0, "passkey": keys["dense"]["exact"]})
        rows[0]["passkey_nll"] = keys["dense"]["nll"]
    for s in settings:
        row: dict[str, Any] = {"name": s.name, "options": s.options, "chunk": s.chunk, **surveys.get(s.name, {})}
        if s.name in evals:
            row |= {"kl": evals[s.name]["kl_mean"], "kl_p99": evals[s.name]["kl_p99"]}
            row |= {"top1": evals[s.name]["top1_agreement"]}
        if s.name in benches:
            row["time"] = ratio(benches[s.name])
        if s.name in keys:
            row |= {"passkey": keys[s.name]["exact"], "passkey_nll": keys[s.name]["nll"]}
        rows.append(row)
    print("\n".join(table(rows)))
    if out is not None:
        out.write_text(json.dumps({"settings": rows}, indent=1) + "\n")
    axis, label = ("time", "time to first token over dense") if benches else ("density", "density")
    shown = [r for r in rows if "kl" in r and axis in r]
    if plot is not None and shown:
        names = list(dict.fromkeys(_series(r) for r in shown))
        series = [Series(n, tuple((r[axis], max(r["kl"], 1e-8), "") for r in shown if _series(r) == n)) for n in names]
        title = "Sparse prefill: time, and divergence from the dense model"
        plot.write_text(scatter(series, title, label, "mean KL divergence, nats a token"))


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown, the fastest setting first and those without a time last; what was not measured is left out."""
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "density": ("density", "{:.3f}".format), "retained_mass": ("mass", "{:.4f}".format),
        "error": ("error", "{:.4f}".format), "time": ("speed", lambda x: f"{1 / x:.2f}"),
        "kl": ("mean KL", "{:.2g}".format), "top1": ("top-1 equal", "{:.1%}".format),
        "passkey": ("keys found", "{:.0%}".format), "passkey_nll": ("nats of the key", "{:.2f}".format),
    }  # fmt: skip
    shown = {key: how for key, how in columns.items() if any(key in row for row in rows)}
    lines = ["| setting | " + " | ".join(name for name, _ in shown.values()) + " |", "|---" * (len(shown) + 1) + "|"]
    for row in sorted((r for r in rows if not shown.keys().isdisjoint(r)), key=lambda row: row.get("time", 2)):
        cells = (how(row[key]) if key in row else "" for key, (_, how) in shown.items())
        what = row["name"] if str(row["options"]).startswith("plan") else row["options"]
        lines.append(f"| `{what}` | " + " | ".join(cells) + " |")
    return lines


def _series(row: Mapping[str, Any]) -> str:
    """Its method, or the name of a plan up to its setting."""
    method = str(row["options"]).split(",")[0]
    return method if method != "plan" else re.sub(r"_[0-9.]+$", "", str(row["name"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", default="", help="names of settings, or beginnings of them")
    parser.add_argument("--plan", action="append", default=[], metavar="NAME=FILE", help="a plan as one more setting")
    parser.add_argument("--steps", default="compile,eval,bench,passkey,report")
    parser.add_argument("--cpu", default="x86-64-v3")
    parser.add_argument("--windows", type=int, default=1, help="of text, to evaluate")
    parser.add_argument("--context", type=int, default=8000, help="tokens of a window")
    parser.add_argument("--tokens", type=int, default=8000, help="of a prompt, to time and to survey")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, dest="out")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    only = tuple(filter(None, given.only.split(",")))
    plans = tuple(Setting(name, f"plan,plan={path}") for name, _, path in (p.partition("=") for p in given.plan))
    settings = tuple(s for s in (*plans, *SETTINGS) if not only or s.name.startswith(only))
    work = Work(given.work)
    steps = given.steps.split(",")
    for setting in settings:
        one = (setting,)
        if "compile" in steps:
            compile_all(work, given.checkpoint, one, given.cpu)
        if "eval" in steps:
            eval_all(work, given.text, one, given.windows, given.context)
        if "bench" in steps:
            bench_all(work, given.text, one, given.tokens, given.rounds)
        if "passkey" in steps:
            passkey_all(work, one)
    if "survey" in steps:
        survey_all(work, given.checkpoint, given.text, settings, given.tokens)
    if "report" in steps:
        report(work, settings, given.plot, given.out)


if __name__ == "__main__":
    main()
