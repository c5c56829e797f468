"""Time of a step by how many sequences decode in it.

    python -m fretsaw.tools.bench.batch_steps --artifact smollm2.fsaw [--sequences 1,2,4,8,16,32] [--threads 2]

``fretsaw-run --batch`` answers N prompts of 16 tokens, with 8 and with 56 new tokens each; the difference of the two
times over the difference of their steps is the time of a step. Best of ``--repeat`` runs of each, in processes of
their own.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from pathlib import Path

from fretsaw.tools.bench.batching import Setup, make, seconds

PROMPT, FEW, MANY = 16, 8, 56


def run(setup: Setup, sequences: int, new: int, folder: Path, repeat: int) -> tuple[float, int]:
    """Seconds and steps of the best of ``repeat`` runs."""
    rng = random.Random(0)
    source = folder / "in.jsonl"
    source.write_text("".join(json.dumps(make(setup, PROMPT, new, rng)) + "\n" for _ in range(sequences)))
    best: tuple[float, int] | None = None
    for i in range(repeat):
        command = setup.command(str(source), folder / f"{sequences}-{new}-{i}.jsonl", "--json")
        summary = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        found = (seconds(summary), int(summary["steps"]))
        best = found if best is None else min(best, found)
    assert best is not None
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--sequences", default="1,2,4,8,16,32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=49152, help="of the artifact")
    args = parser.parse_args()
    setup = Setup(args.artifact, args.threads, "2GB", args.vocab)
    with tempfile.TemporaryDirectory() as name:
        for sequences in map(int, args.sequences.split(",")):
            (few, start), (many, end) = (run(setup, sequences, n, Path(name), args.repeat) for n in (FEW, MANY))
            print(f"{sequences:4} sequences: {1000 * (many - few) / (end - start):6.1f} ms a step", flush=True)


if __name__ == "__main__":
    main()
