"""Generate text from an artifact: python examples/generate.py MODEL.fsaw "The capital of France is"."""

from __future__ import annotations

import argparse
from pathlib import Path

from fretsaw.runtime import Generation, Model, Sampling


def main() -> None:
    """Print the text as it comes, then the speed."""
    parser = argparse.ArgumentParser(description="Generate text from a compiled model.")
    parser.add_argument("artifact", type=Path, help="what `fretsaw compile` wrote")
    parser.add_argument("prompt")
    parser.add_argument("--chat", action="store_true", help="send the prompt as a user's message")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=0, help="0: one per physical core")
    options = parser.parse_args()

    done = Generation()
    with Model(options.artifact, threads=options.threads) as model:
        prompt: str | list[int] = options.prompt
        if options.chat:  # the template writes the special tokens itself
            text = model.apply_chat([{"role": "user", "content": options.prompt}])
            prompt = model.encode(text, add_special_tokens=False)
        sampling = Sampling(temperature=options.temperature)
        for token in model.generate(prompt, options.max_new_tokens, sampling, result=done):
            print(token.text, end="", flush=True)
    rate = 1000 * done.decode_steps / done.decode_ms if done.decode_ms else 0.0
    print(f"\n[{done.finish}, {len(done.tokens)} tokens, {rate:.1f} a second]")


if __name__ == "__main__":
    main()
