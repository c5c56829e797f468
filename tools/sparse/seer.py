"""Train SeerAttention's gate on a model's own attention.

    python -m fretsaw.tools.sparse.seer CHECKPOINT --text TEXT -o gate.safetensors [--tokens 4096] [--pieces 4]

    target(i, j)  largest attention weight in block (i, j), each row of blocks made to sum to one
    gate(i, .)    softmax over visible j of rope(Wq . mean q) . rope(Wk . (max, min, mean) k) / sqrt(E)
    loss          KL divergence of gate from target over query blocks behind the first quarter, a layer on its own

The dense model reads pieces of the text once, by the reference interpreter; the last piece is held out. Weights start
as mean pooling, have the published names and layout (``self_attn.attn_gate.mask_linear_q.weight`` [H, E, E],
``mask_linear_k.weight`` [Hkv, 3 E, E]), and are what ``sparse_attention:method=seer_attention,gate=FILE`` reads.
Source: SeerAttention, arXiv:2410.13276; its training reads 0.5 billion tokens, this as many as it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fretsaw.ir import Graph, Node, Value
from fretsaw.ir.errors import PassError
from fretsaw.ir.kv import BLOCK
from fretsaw.passes.evidence.feeds import Sequence as Text
from fretsaw.passes.evidence.feeds import feed
from fretsaw.passes.evidence.watched import run_watched
from fretsaw.passes.kit.edit import Edit
from fretsaw.passes.kit.inspector import Look
from fretsaw.passes.sparse.calibrate.layer import Layer
from fretsaw.passes.sparse.methods.seer_attention import GATE
from fretsaw.passes.sparse.rotary_parts import BeforeRope, before_rope
from fretsaw.passes.sparse.site import Site

Array = np.ndarray
Note = Callable[[str], object]
SKIPPED = 0.25  # of the query blocks, whose few keys teach nothing
RATE = 1e-3


@dataclass(frozen=True, eq=False)
class Pooled:
    """What the gate of one layer sees of one piece, and what it should say.

    Args:
        q: Mean queries before the rotary embedding, f32[n, H, E].
        k: Largest, smallest and mean keys before it, f32[n, K, 3 E].
        target: f32[H, n, n], rows sum to one.
        cos, sin: At the positions where blocks begin, f32[n, E/2].
        layout: Of the rotary embedding.
    """

    q: Array
    k: Array
    target: Array
    cos: Array
    sin: Array
    layout: str


def pool(layer: Layer, q: Array, k: Array, freq: Array, layout: str) -> Pooled:
    """Pools of one layer on one piece; q [S, H, E] and k [S, K, E] are those before the rotary embedding."""
    starts = np.arange(0, layer.tokens, BLOCK)
    count = np.diff([*starts, layer.tokens])[:, None, None]
    mean_q = np.add.reduceat(q, starts, axis=0) / count
    pools = [np.maximum.reduceat(k, starts, axis=0), np.minimum.reduceat(k, starts, axis=0)]
    keys = np.concatenate([*pools, np.add.reduceat(k, starts, axis=0) / count], axis=2)
    target = np.zeros((layer.heads, layer.blocks, layer.blocks), np.float32)
    for head in range(layer.heads):
        for i in range(layer.blocks):
            p = layer.weights(head, slice(i * BLOCK, min((i + 1) * BLOCK, layer.tokens)))
            target[head, i, : i + 1] = np.maximum.reduceat(p.max(axis=0), starts[: i + 1])
    target /= target.sum(axis=2, keepdims=True)
    angle = starts[:, None] * freq.astype(np.float64)[None, :]
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    return Pooled(mean_q.astype(np.float32), keys.astype(np.float32), target, cos, sin, layout)


def collect(graph: Graph, piece: Text, note: Note = lambda text: None) -> dict[int, Pooled]:
    """Pools of all layers of a packed dense graph on one piece of text.

    Raises:
        PassError: queries and keys of a layer have no rotary embedding that a gate could take its place before.
    """
    parts: dict[Node, BeforeRope] = {}
    for node in (n for n in graph.nodes if n.op == "cached_attention"):
        append = next(n for n in graph.nodes if n.op == "kv_append" and n.attr("layer") == node.attr("layer"))
        found = before_rope(Site(Edit(), graph, node, append))
        if isinstance(found, str):
            raise PassError(f"a gate cannot be trained: {found}", where=node.loc.module)
        parts[node] = found
    reads: dict[Node, Sequence[Value]] = {n: [p.q, p.k, p.freq] for n, p in parts.items()}
    out: dict[int, Pooled] = {}

    def watch(node: Node, look: Look, results: list[Array]) -> list[Array]:
        if node in parts:
            layer, part = Layer.of(node, look), parts[node]
            q, k, freq = (np.asarray(look(v)) for v in (part.q, part.k, part.freq))
            out[layer.number] = pool(layer, q, k, freq, part.layout)
            note(f"layer {layer.number}")
        return results

    inputs = feed(graph, piece)
    inputs |= {v.name: np.zeros(1, np.int32) for v in graph.inputs if v.name == "rows"}
    run_watched(graph, inputs, watch, reads=reads)
    return out


def scores(pooled: Pooled, wq: torch.Tensor, wk: torch.Tensor) -> torch.Tensor:
    """Log of the gate [H, n, n]; -inf above the diagonal."""
    q = torch.einsum("nhe,heg->hng", torch.from_numpy(pooled.q), wq)
    k = torch.einsum("nki,kig->kng", torch.from_numpy(pooled.k), wk)
    cos, sin = torch.from_numpy(pooled.cos), torch.from_numpy(pooled.sin)
    q, k = (_turn(x, cos, sin, pooled.layout) for x in (q, k))
    k = k.repeat_interleave(q.shape[0] // k.shape[0], dim=0)
    raw = q @ k.transpose(1, 2) * q.shape[2] ** -0.5
    ahead = torch.ones(raw.shape[1:], dtype=torch.bool).triu(1)
    log: torch.Tensor = raw.masked_fill(ahead, -torch.inf).log_softmax(dim=2)
    return log


def _turn(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, layout: str) -> torch.Tensor:
    """Rotate [., n, G] by the angles of its blocks, as ``rotate`` of the reference does (a test compares them)."""
    if layout == "interleaved":
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def loss_of(pooled: Pooled, wq: torch.Tensor, wk: torch.Tensor) -> torch.Tensor:
    """Mean KL divergence of the gate from its target, in nats a row of blocks."""
    first = int(SKIPPED * pooled.target.shape[1])
    target = torch.from_numpy(pooled.target)[:, first:]
    said = scores(pooled, wq, wk)[:, first:].masked_fill(target == 0, 0.0)
    loss: torch.Tensor = (torch.special.xlogy(target, target) - target * said).sum(dim=2).mean()
    return loss


@dataclass(frozen=True)
class Trained:
    """A layer's gate and its loss on the held-out piece, before and after."""

    wq: Array
    wk: Array
    before: float
    after: float


def train(pieces: Sequence[Pooled], held_out: Pooled, steps: int, seed: int = 0) -> Trained:
    """Train the gate of one layer; the weights of the step that was best on the held-out piece are kept."""
    size, heads, kv_heads = pieces[0].q.shape[2], pieces[0].q.shape[1], pieces[0].k.shape[1]
    torch.manual_seed(seed)
    wq = torch.eye(size).repeat(heads, 1, 1)
    wk = torch.cat([torch.zeros(2 * size, size), torch.eye(size)]).repeat(kv_heads, 1, 1)
    weights = [(w + 0.01 * torch.randn_like(w)).requires_grad_() for w in (wq, wk)]
    optimizer = torch.optim.Adam(weights, lr=RATE)
    with torch.no_grad():
        first = best = float(loss_of(held_out, wq, wk))
    kept = [wq, wk]
    for step in range(steps):
        optimizer.zero_grad()
        loss = loss_of(pieces[step % len(pieces)], *weights)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 10 == 9 or step == steps - 1:
            with torch.no_grad():
                now = float(loss_of(held_out, *weights))
            if now < best:
                best, kept = now, [w.detach().clone() for w in weights]
    return Trained(kept[0].numpy(), kept[1].numpy(), first, best)


def save(path: Path, gates: dict[int, Trained]) -> None:
    """Write gates under the published names."""
    from safetensors.numpy import save_file

    tensors = {
        f"model.layers.{n}.{GATE}{which}.weight": np.ascontiguousarray(w)
        for n, gate in gates.items() for which, w in (("q", gate.wq), ("k", gate.wk))
    }  # fmt: skip
    save_file(tensors, path)


def train_gates(graph: Graph, ids: Array, tokens: int, pieces: int, steps: int, note: Note) -> dict[int, Trained]:
    """Gates of all layers from ``pieces`` pieces of ``tokens`` tokens, the last one held out.

    Raises:
        PassError: the text is too short, or a layer has no rotary embedding.
    """
    if pieces < 2 or len(ids) < pieces * tokens or tokens < 4 * BLOCK:
        what = f"{pieces} pieces of {tokens} tokens from a text of {len(ids)}: a gate needs 2 pieces of {4 * BLOCK}"
        raise PassError(what, hint="a longer text, or shorter pieces")
    found: list[dict[int, Pooled]] = []
    for i in range(pieces):
        piece = Text(f"piece {i}", ids[i * tokens : (i + 1) * tokens], "text", 0)
        found.append(collect(graph, piece, lambda what, i=i: note(f"piece {i}, {what}")))  # type: ignore[misc]
    gates: dict[int, Trained] = {}
    for n in sorted(found[0]):
        gates[n] = train([f[n] for f in found[:-1]], found[-1][n], steps)
        note(f"layer {n}: divergence {gates[n].before:.3f} before, {gates[n].after:.3f} after")
    return gates


def main() -> None:
    import argparse
    import sys

    from tokenizers import Tokenizer

    from fretsaw.frontend.capture import capture
    from fretsaw.frontend.checkpoint import load_checkpoint
    from fretsaw.passes.pipeline import run_pipeline

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=4096, help="of a piece")
    parser.add_argument("--pieces", type=int, default=4, help="the last one is held out")
    parser.add_argument("--steps", type=int, default=300, help="of training a layer")
    given = parser.parse_args()
    loaded = load_checkpoint(given.checkpoint)
    if loaded.tokenizer_json is None:
        parser.error("the checkpoint has no tokenizer.json")
    text = given.text.read_text(encoding="utf-8")
    ids = np.array(Tokenizer.from_str(loaded.tokenizer_json.decode()).encode(text).ids)
    graph = run_pipeline(capture(loaded)).graph
    gates = train_gates(graph, ids, given.tokens, given.pieces, given.steps, lambda note: sys.stderr.write(f"{note}\n"))
    save(given.output, gates)
    before, after = (float(np.mean([getattr(g, name) for g in gates.values()])) for name in ("before", "after"))
    sys.stdout.write(f"{len(gates)} layers; divergence on the held-out piece {before:.3f} before, {after:.3f} after\n")


if __name__ == "__main__":
    main()
