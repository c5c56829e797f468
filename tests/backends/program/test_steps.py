"""The program as the artifact carries it computes what the reference does: prompts, decoding, a batch of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fretsaw.backends.kernel_cache import KernelCache
from fretsaw.backends.program.serialize import from_bytes, to_bytes
from fretsaw.backends.tvm.build import Program, build
from fretsaw.backends.tvm.codegen.objects import compile_kernels, kernel_of
from fretsaw.backends.tvm.kernels.isa import V3
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.ir import Graph
from fretsaw.ir.interp import run
from fretsaw.ir.kv import ReferenceKvCache
from tests.backends.program.conftest import Packed
from tests.backends.program.walk import Code, poisoned
from tests.backends.tvm.encoder import EncoderRunner
from tests.backends.tvm.paged import PagedRunner, sizes_of
from tests.families import VOCAB

CPU = "llvm-x86-64-v3"
OPTIONS = TvmOptions(cpus=("x86-64-v3",))
BOUND = 1e-4  # of the largest logit: sums of at most 80 f32 terms in another order, through two layers


class Reference:
    """The interpreter beside a program, fed the same steps."""

    def __init__(self, graph: Graph, layers: int, sequences: int) -> None:
        self.graph, self.kv = graph, ReferenceKvCache(layers, sequences)
        self.lens = np.zeros(sequences, np.int32)

    def step(self, tokens: Sequence[Sequence[int]]) -> np.ndarray:
        counts = [len(t) for t in tokens]
        self.kv.begin_step(counts)
        positions = [np.arange(a, a + n, dtype=np.int32) for a, n in zip(self.lens, counts, strict=True)]
        self.lens += np.array(counts, np.int32)
        flat = np.concatenate([np.asarray(t, np.int32) for t in tokens])
        rows = np.arange(len(flat), dtype=np.int32)
        (logits,) = run(
            self.graph, {"tokens": flat, "positions": np.concatenate(positions), "rows": rows, "kv": self.kv}
        )
        return np.asarray(logits)


def ids(seed: int, count: int) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(3, VOCAB, count)]


STEPS: dict[str, list[list[list[int]]]] = {
    "a prompt": [[ids(0, 70)]],
    "a prompt in parts, then decoding": [[ids(1, 40)], [ids(2, 30)], *[[[i + 5]] for i in range(3)]],
    "a batch": [[ids(3, 9), ids(4, 1), ids(5, 33)], [[7], [8], [9]], [[5], [], ids(6, 12)]],
}


@pytest.mark.parametrize("family", ["llama", "mixtral"])
@pytest.mark.parametrize("name", STEPS)
def test_steps_compute_the_reference(family: str, name: str, packed: Packed) -> None:
    graph = packed(family)[0]
    program = build(graph, OPTIONS)
    sequences = len(STEPS[name][0])
    runner = PagedRunner(program, CPU, sequences)
    reference = Reference(graph, sizes_of(program, "layers")[0], sequences)
    for tokens in STEPS[name]:
        want, got = reference.step(tokens), runner.step(tokens)
        assert np.isfinite(got).all()  # whatever was read before it was written is NaN
        assert np.abs(got - want).max() < BOUND * np.abs(want).max()


def test_an_encoder_computes_the_reference(packed: Packed) -> None:
    graph = packed("bert")[0]
    texts = [ids(7, 5), ids(8, 31), ids(9, 1)]
    got = EncoderRunner(build(graph, OPTIONS), CPU)(texts)
    flat = np.concatenate([np.asarray(t, np.int32) for t in texts])
    positions = np.concatenate([np.arange(len(t), dtype=np.int32) for t in texts])
    cu = np.cumsum([0, *map(len, texts)]).astype(np.int32)
    (want,) = run(graph, {"tokens": flat, "positions": positions, "cu": cu})
    assert np.abs(got - np.asarray(want)).max() < BOUND * np.abs(np.asarray(want)).max()


def test_the_poison_is_seen(packed: Packed) -> None:
    """A program whose first launch is left out reads what nobody wrote."""
    program = build(packed("llama")[0], OPTIONS)
    runner = PagedRunner(program, CPU)
    (entry,) = from_bytes(to_bytes(program.steps)).entries
    object.__setattr__(runner.walker.program.entries[0], "calls", entry.calls[1:])
    assert np.isnan(runner.step([ids(0, 9)])).any()
    assert all(np.isnan(slot.view(np.float32)).all() for slot in poisoned(entry, {"T": 3, "R": 2, "B": 1}))


def linear() -> tuple[str, Code]:
    """One kernel as a code section: a GEMM of [T, 24] by [24, 40]."""
    from fretsaw.backends.program.specs.layers import LinearSpec
    from fretsaw.backends.tvm.codegen.link import link_kernels

    kernel = kernel_of(LinearSpec(40, 24, "f32"), V3)
    objects = compile_kernels([kernel], KernelCache()).objects
    return kernel.name, Code(link_kernels({kernel.name: objects[kernel.key]}))


def arrays(depth: int) -> list[np.ndarray]:
    return [np.ones((2, depth), np.float32), np.ones((3, 24, 16), np.float32), np.zeros((2, 40), np.float32)]


def test_a_kernel_says_what_does_not_fit() -> None:
    name, code = linear()
    code.call(name, good := arrays(24))
    assert (good[2] == 24).all()
    with pytest.raises(RuntimeError, match=f"{name}: ValueError: Mismatched .* on argument #0"):
        code.call(name, arrays(23))


def test_a_kernel_without_anybody_to_tell_fails_all_the_same() -> None:
    name, code = linear()
    code.pointer("fretsaw_raise").value = None
    with pytest.raises(RuntimeError, match=f"^{name}: $"):
        code.call(name, arrays(23))


def test_programs_are_the_same_bytes(packed: Packed) -> None:
    graph = packed("llama")[0]
    one, two = (build(graph, OPTIONS) for _ in range(2))
    assert isinstance(one, Program) and to_bytes(one.steps) == to_bytes(two.steps) and one.variants == two.variants
