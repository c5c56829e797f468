"""Prefill of one artifact against another: every reading in a process of its own, interleaved, medians over rounds.

A slow minute of a shared machine hits both: each round reads each length once with each artifact, in turn first and
second. Ratios are taken in each round and their median is reported. ``python -m fretsaw.tools.prefill`` is one reading.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from fretsaw.ir.errors import UsageError

WARM_UP = 512  # tokens that bring weights and code into memory


@dataclass(frozen=True)
class Reading:
    """Of one process.

    Args:
        first_token_ms: From the prompt to the logits of its last token, the model being loaded.
        decode_ms: For a token after that; 0 when none was asked for.
    """

    tokens: int
    first_token_ms: float
    decode_ms: float


Read = Callable[[Path, int], Reading]
Rounds = Sequence[Mapping[int, Mapping[str, Reading]]]  # by length and artifact


def read_once(artifact: Path, tokens: int, decode: int, threads: int, text: Path | None) -> Reading:
    """Measure in this process.

    Raises:
        UsageError: the text cannot be read or is empty, or the tokens do not fit the model's context.
    """
    from fretsaw.runtime import Model

    with Model(artifact, threads=threads) as model:
        if tokens + decode > model.context:
            raise UsageError(f"{tokens} + {decode} tokens do not fit a context of {model.context}", where=str(artifact))
        ids = _prompt(model.encode(_text(text), False) if text else None, tokens, model.vocab_size)
        with model.session(tokens + decode) as session:
            session.forward(ids[:WARM_UP], True)
            session.reset()
            start = time.perf_counter()
            logits = session.forward(ids, True)
            first = time.perf_counter()
            for _ in range(decode):
                logits = session.forward([int(logits[0].argmax())], True)
            end = time.perf_counter()
    return Reading(tokens, 1e3 * (first - start), 1e3 * (end - first) / max(decode, 1) if decode else 0.0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {why}") from None


def _prompt(text: Sequence[int] | None, tokens: int, vocab: int) -> list[int]:
    """The text, again and again if it is short; without one, seeded random ids."""
    if text is None:
        return [int(i) for i in np.random.default_rng(0).integers(0, vocab, tokens)]
    if not text:
        raise UsageError("the text of --text has no tokens")
    return (list(text) * (tokens // len(text) + 1))[:tokens]


def read_apart(artifact: Path, tokens: int, decode: int, threads: int, text: Path | None) -> Reading:
    """Measure in a process of its own.

    Raises:
        UsageError: what that process has to say when it fails.
    """
    asked = {"artifact": str(artifact), "tokens": tokens, "decode": decode, "threads": threads,
             "text": str(text) if text else None}  # fmt: skip
    command = [sys.executable, "-m", "fretsaw.tools.prefill", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise UsageError(f"measuring {artifact} failed: {done.stderr.strip() or 'no message'}")
    return Reading(**json.loads(done.stdout))


def measure(
    artifacts: Sequence[Path], lengths: Sequence[int], rounds: int, read: Read, progress: Callable[[float], None]
) -> Rounds:
    """``rounds`` readings of each artifact at each length; who is first changes from round to round."""
    found = []
    for number in range(rounds):
        order = artifacts if number % 2 == 0 else artifacts[::-1]
        this: dict[int, dict[str, Reading]] = {}
        for tokens in lengths:
            this[tokens] = {}
            for artifact in order:
                this[tokens][str(artifact)] = read(artifact, tokens)
                progress(tokens)
        found.append(this)
    return found


def summary(rounds: Rounds, ours: Path, against: Path | None) -> list[dict[str, object]]:
    """By length: medians of each artifact, how many times as fast ours is, and every reading."""
    out: list[dict[str, object]] = []
    for tokens in rounds[0]:
        of = {name: [r[tokens][name] for r in rounds] for name in rounds[0][tokens]}
        entry: dict[str, object] = {"tokens": tokens}
        for key, path in (("artifact", ours), ("against", against)):
            if path is not None:
                entry[key] = _medians(of[str(path)])
        if against is not None:
            pairs = list(zip(of[str(ours)], of[str(against)], strict=True))
            entry["speedup"] = median(b.first_token_ms / a.first_token_ms for a, b in pairs)
        out.append(entry | {"readings": {name: [asdict(r) for r in some] for name, some in of.items()}})
    return out


def _medians(readings: Sequence[Reading]) -> dict[str, float]:
    first, decode = median(r.first_token_ms for r in readings), median(r.decode_ms for r in readings)
    return {
        "first_token_ms": first,
        "prefill_tok_s": 1e3 * readings[0].tokens / first,
        "decode_tok_s": 1e3 / decode if decode else 0.0,
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    given |= {"artifact": Path(given["artifact"]), "text": Path(given["text"]) if given["text"] else None}
    try:
        sys.stdout.write(json.dumps(asdict(read_once(**given))))
    except Exception as error:
        sys.exit(getattr(error, "what", f"{type(error).__name__}: {error}"))
