"""raise_experts: golden text, both forms, every gate and layout, every decline, f64 and f32, and a bound that fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fretsaw.ir import Const
from fretsaw.passes.api import apply
from fretsaw.passes.canonical.raise_experts import expert_sums, raise_experts
from tests.passes.kit import equivalent, error_in_eps, golden, read, untouched

BOUND = 64  # products of 4 and 3 terms, and a sum of two experts in another order

HEAD = """
graph @g(%x: f32[T, 4], %l: f32[T, 3]) -> (%y) {
  dim T in [1, 64]
  const %gu: f32[3, 6, 4]
  const %d: f32[3, 4, 3]
  const %bgu: f32[3, 6]
  const %bd: f32[3, 4]
  const %one: f32[] = data([1.0])
  const %slope: f32[] = data([1.5])
  %i: i64[T, 2], %w: f32[T, 2] = router(%l) {k = 2}  // mlp.gate
"""
PICKED = (
    HEAD
    + """
  %ids: i64[2*T] = reshape(%i) {shape = [2*T]}
  %x3: f32[T, 1, 4] = reshape(%x) {shape = [T, 1, 4]}
  %xx: f32[T, 2, 4] = expand(%x3) {shape = [T, 2, 4]}
  %xr: f32[2*T, 4] = reshape(%xx) {shape = [2*T, 4]}
  %xc: f32[2*T, 4, 1] = reshape(%xr) {shape = [2*T, 4, 1]}
  %tg: f32[2*T, 6, 4] = take(%gu, %ids)
  %g3: f32[2*T, 6, 1] = matmul(%tg, %xc)  // mlp.experts
  %h: f32[2*T, 6] = reshape(%g3) {shape = [2*T, 6]}
  %gate: f32[2*T, 3] = slice(%h) {axis = 1, end = 3, start = 0}
  %up: f32[2*T, 3] = slice(%h) {axis = 1, end = 6, start = 3}
  %act: f32[2*T, 3] = silu(%gate)
  %m: f32[2*T, 3] = mul(%act, %up)
  %mc: f32[2*T, 3, 1] = reshape(%m) {shape = [2*T, 3, 1]}
  %td: f32[2*T, 4, 3] = take(%d, %ids)
  %o3: f32[2*T, 4, 1] = matmul(%td, %mc)  // mlp.experts
  %o: f32[2*T, 4] = reshape(%o3) {shape = [2*T, 4]}
  %wf: f32[2*T] = reshape(%w) {shape = [2*T]}
  %wc: f32[2*T, 1] = reshape(%wf) {shape = [2*T, 1]}
  %ow: f32[2*T, 4] = mul(%o, %wc)
  %ok: f32[T, 2, 4] = reshape(%ow) {shape = [T, 2, 4]}
  %y: f32[T, 4] = sum(%ok) {axis = 1}  // mlp.experts
}
"""
)
PICKED_AFTER = """
graph @g(%x: f32[T, 4], %l: f32[T, 3]) -> (%y) {
  dim T in [1, 64]
  const %gu: f32[3, 6, 4]
  const %d: f32[3, 4, 3]
  %i: i64[T, 2], %w: f32[T, 2] = router(%l) {k = 2}  // mlp.gate
  %y: f32[T, 4] = experts(%x, %i, %w, %gu, %d)  // mlp.experts <raise_experts>
}
"""
# Transposed weights, biases, and the alternating clamped gate of gpt-oss.
CLAMPED = (
    HEAD.replace("f32[3, 6, 4]", "f32[3, 4, 6]").replace("%d: f32[3, 4, 3]", "%d: f32[3, 3, 4]")
    + """
  %ids: i64[2*T] = reshape(%i) {shape = [2*T]}
  %x3: f32[T, 1, 4] = reshape(%x) {shape = [T, 1, 4]}
  %xx: f32[T, 2, 4] = expand(%x3) {shape = [T, 2, 4]}
  %xr: f32[2*T, 4] = reshape(%xx) {shape = [2*T, 4]}
  %xc: f32[2*T, 1, 4] = reshape(%xr) {shape = [2*T, 1, 4]}
  %tg: f32[2*T, 4, 6] = take(%gu, %ids)
  %g3: f32[2*T, 1, 6] = matmul(%xc, %tg)
  %g2: f32[2*T, 6] = reshape(%g3) {shape = [2*T, 6]}
  %tbg: f32[2*T, 6] = take(%bgu, %ids)
  %h: f32[2*T, 6] = add(%g2, %tbg)
  %gate0: f32[2*T, 3] = slice(%h) {axis = 1, end = 5, start = 0, step = 2}
  %gate: f32[2*T, 3] = clamp(%gate0) {max = 0.9}
  %up0: f32[2*T, 3] = slice(%h) {axis = 1, end = 6, start = 1, step = 2}
  %up1: f32[2*T, 3] = clamp(%up0) {max = 0.9, min = -0.9}
  %up: f32[2*T, 3] = add(%up1, %one)
  %ag: f32[2*T, 3] = mul(%gate, %slope)
  %sg: f32[2*T, 3] = sigmoid(%ag)
  %act: f32[2*T, 3] = mul(%gate, %sg)
  %m: f32[2*T, 3] = mul(%up, %act)
  %mc: f32[2*T, 1, 3] = reshape(%m) {shape = [2*T, 1, 3]}
  %td: f32[2*T, 3, 4] = take(%d, %ids)
  %o3: f32[2*T, 1, 4] = matmul(%mc, %td)
  %o2: f32[2*T, 4] = reshape(%o3) {shape = [2*T, 4]}
  %tbd: f32[2*T, 4] = take(%bd, %ids)
  %o: f32[2*T, 4] = add(%o2, %tbd)
  %wc: f32[2*T, 1] = reshape(%w) {shape = [2*T, 1]}
  %ow: f32[2*T, 4] = mul(%o, %wc)
  %ok: f32[T, 2, 4] = reshape(%ow) {shape = [T, 2, 4]}
  %y: f32[T, 4] = sum(%ok) {axis = 1}  // mlp.experts
}
"""
)
# Every expert on every token, weighted by a matrix that is zero where an expert was not chosen.
DENSE = HEAD.replace("f32[3, 6, 4]", "f32[3, 4, 6]").replace("%d: f32[3, 4, 3]", "%d: f32[3, 3, 4]").replace(
    "f32[3, 6]", "f32[3, 1, 6]").replace("%bd: f32[3, 4]", "%bd: f32[3, 1, 4]") + """
  %x3: f32[1, T, 4] = reshape(%x) {shape = [1, T, 4]}
  %xx: f32[3, T, 4] = expand(%x3) {shape = [3, T, 4]}
  %g3: f32[3, T, 6] = matmul(%xx, %gu)
  %h: f32[3, T, 6] = add(%g3, %bgu)
  %gate: f32[3, T, 3] = slice(%h) {axis = 2, end = 3, start = 0}
  %up: f32[3, T, 3] = slice(%h) {axis = 2, end = 6, start = 3}
  %act: f32[3, T, 3] = gelu(%gate) {approximate = "tanh"}
  %m: f32[3, T, 3] = mul(%act, %up)
  %o3: f32[3, T, 4] = matmul(%m, %d)
  %o: f32[3, T, 4] = add(%o3, %bd)
  %none: f32[T, 3] = full() {dtype = "f32", shape = [T, 3], value = 0.0}
  %ws: f32[T, 3] = scatter(%none, %i, %w) {axis = 1}
  %wt: f32[3, T] = transpose(%ws) {perm = [1, 0]}
  %wc: f32[3, T, 1] = reshape(%wt) {shape = [3, T, 1]}
  %ow: f32[3, T, 4] = mul(%o, %wc)
  %y: f32[T, 4] = sum(%ow) {axis = 0}  // mlp.experts
}
"""  # fmt: skip


def test_golden() -> None:
    golden(raise_experts, PICKED, PICKED_AFTER)
    assert len(expert_sums(read(PICKED))) == 1 and not expert_sums(read(PICKED_AFTER))


@pytest.mark.parametrize(
    ("text", "attrs"),
    [
        (PICKED, {}),
        (PICKED.replace("silu(", "relu("), {"act": "relu"}),
        (PICKED.replace("silu(", "gelu("), {"act": "gelu"}),
        (PICKED.replace("mul(%act, %up)", "mul(%up, %act)"), {}),
        (PICKED.replace("mul(%o, %wc)", "mul(%wc, %o)"), {}),
        (CLAMPED, {"act": "clamped_swiglu", "alpha": 1.5, "layout": "interleaved", "limit": 0.9}),
        (DENSE, {"act": "gelu_tanh"}),
    ],
)
def test_forms(text: str, attrs: dict[str, object]) -> None:
    after, _ = apply(raise_experts, read(text))
    assert [n.op for n in after.nodes] == ["router", "experts"] and dict(after.nodes[1].attrs) == attrs
    equivalent(raise_experts, text, BOUND)
    golden_of = apply(raise_experts, after)[0]
    assert golden_of is after


def test_a_weight_stored_turned_is_turned_back_for_nothing() -> None:
    """What the importer stores as a transpose of the checkpoint's tensor is that tensor again."""
    from fretsaw.passes.canonical.fold_constants import fold_constants

    text = CLAMPED.replace("const %gu: f32[3, 4, 6]", "const %raw: f32[3, 6, 4]").replace(
        "  %ids:", "  %gu: f32[3, 4, 6] = transpose(%raw) {perm = [0, 2, 1]}\n  %ids:", 1
    )
    folded, _ = apply(fold_constants, read(text))
    after, _ = apply(raise_experts, folded)
    kept = {v.name: c for v, c in read(text).consts.items()}["raw"]
    assert kept in after.consts.values()


@pytest.mark.parametrize(
    ("text", "old", "new", "reason", "at"),
    [
        (PICKED, "%m: f32[2*T, 3] = mul(", "%m: f32[2*T, 3] = add(",
         "no product of gate and up between the projections", "o3"),
        (PICKED, "silu(", "tanh(", "the gate's activation is not known", "o3"),
        (PICKED, "slice(%h) {axis = 1, end = 6, start = 3}", "slice(%h2) {axis = 1, end = 6, start = 3}",
         "gate and up are not cut from one projection", "o3"),
        (PICKED, "{axis = 1, end = 6, start = 3}", "{axis = 1, end = 5, start = 2}",
         "gate and up are neither halves nor alternating features", "o3"),
        (PICKED, "%h: f32[2*T, 6] = reshape(%g3) {shape = [2*T, 6]}", "%h: f32[2*T, 6] = neg(%h2)",
         "gate and up do not come from weights picked by expert", "h"),
        (PICKED, "take(%d, %ids)", "take(%d, %other)",
         "the two projections differ in experts or in having a bias", "g3"),
        (CLAMPED, "%o: f32[2*T, 4] = add(%o2, %tbd)", "%o: f32[2*T, 4] = reshape(%o3) {shape = [2*T, 4]}",
         "the two projections differ in experts or in having a bias", "g3"),
        (PICKED, "%xr: f32[2*T, 4] = reshape(%xx) {shape = [2*T, 4]}", "%xr: f32[2*T, 4] = neg(%z)",
         "the rows are not every token repeated once an expert", "xr"),
        (PICKED, "%wf: f32[2*T] = reshape(%w) {shape = [2*T]}", "%wf: f32[2*T] = neg(%wz)",
         "f32[2*T, 1] is no choice of each token [T, k]", "wc"),
        (PICKED, "reshape(%ow) {shape = [T, 2, 4]}\n  %y: f32[T, 4] = sum(%ok) {axis = 1}",
         "reshape(%ow) {shape = [T, 2, 4]}\n  %y: f32[T, 2] = sum(%ok) {axis = 2}",
         "the sum is not over the chosen experts", "y"),
        (DENSE, "expand(%x3) {shape = [3, T, 4]}", "neg(%z3)",
         "the experts do not all read the same tokens [T, D]", "g3"),
        (DENSE, "value = 0.0", "value = 0.5", "experts that are not chosen have a weight", "ws"),
        (DENSE, "scatter(%none, %i, %w) {axis = 1}", "neg(%none)",
         "the weights are not scattered by the choice of experts", "wc"),
        (DENSE, "%y: f32[T, 4] = sum(%ow) {axis = 0}", "%y: f32[1, T, 4] = sum(%ow) {axis = 0, keepdims = true}",
         "the sum keeps its axis", "y"),
        (DENSE, "const %bd: f32[3, 1, 4]", "const %bd: f32[4]", "a bias is no constant of one row an expert", "o3"),
    ],
)  # fmt: skip
def test_declines(text: str, old: str, new: str, reason: str, at: str) -> None:
    assert old in text
    changed = text.replace(old, new).replace(
        "%l: f32[T, 3])", "%l: f32[T, 3], %z: f32[2*T, 4], %z3: f32[3, T, 4], %wz: f32[2*T], %h2: f32[2*T, 6], "
        "%other: i64[2*T])",
    )  # fmt: skip
    assert untouched(raise_experts, changed) == [(reason, at)]


def test_the_bound_can_fail() -> None:
    before = read(CLAMPED)
    after, _ = apply(raise_experts, before)
    for name, value in (("alpha", 1.501), ("limit", 0.901), ("layout", "concat")):
        nodes = tuple(
            replace(n, attrs=tuple(sorted({**dict(n.attrs), name: value}.items()))) if n.op == "experts" else n
            for n in after.nodes
        )
        assert error_in_eps(before, replace(after, nodes=nodes), 0) > BOUND
    nudged = {v: Const.of(c.load() * (1 + 5e-5), "f32") for v, c in after.consts.items()}
    assert error_in_eps(before, replace(after, consts=nudged), 0) > BOUND
