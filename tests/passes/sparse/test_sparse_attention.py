"""sparse_attention: golden text, which layers and heads it reaches, what it refuses, what it says of the result."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fretsaw.ir import Graph, parse, to_text
from fretsaw.ir.errors import PassError, UsageError
from fretsaw.passes.kit.testing import golden
from fretsaw.passes.sparse.calibrate.choose import RULES
from fretsaw.passes.sparse.describe import describe_heads, methods_of, whole_prompts
from fretsaw.passes.sparse.methods import METHODS
from tests.passes.sparse.layers import PASS, find, layer_graph, layer_text, run_steps, sparse, tokens

BEFORE = """
graph @g(%q: f32[T, 4, 8], %k: f32[T, 2, 8], %v: f32[T, 2, 8], %kv: handle<kv_cache>, %s: f32[4]) -> (%o) {
  phase packed
  dim T in [1, 64]
  kv_append(%kv, %k, %v) {layer = 0}  // layers.0.self_attn
  %o: f32[T, 4, 8] = cached_attention(%kv, %q, %s) {layer = 0, scale = 0.5, value_size = 8}  // layers.0.self_attn
}
"""
AFTER = """
graph @g(%q: f32[T, 4, 8], %k: f32[T, 2, 8], %v: f32[T, 2, 8], %kv: handle<kv_cache>, %s: f32[4]) -> (%o) {
  phase packed
  dim B in [1, 1048576]
  dim KB in [1, 1048576]
  dim QB in [1, 2097152]
  dim T in [1, 64]
  kv_append(%kv, %k, %v) {layer = 0}  // layers.0.self_attn
  %o.span_blocks: bool[QB, 4, KB] = span_blocks(%kv) {sink = [4, 4, 4, 4], window = [64, 64, 64, 64]}  // layers.0.self_attn <sparse_attention>
  %o.compact_blocks: i32[QB, 4, KB], %o.compact_blocks.1: i32[QB, 4] = compact_blocks(%o.span_blocks)  // layers.0.self_attn <sparse_attention>
  %o: f32[T, 4, 8] = block_attention(%kv, %q, %o.compact_blocks, %o.compact_blocks.1, %s) {layer = 0, method = "lambda_mask:sink=4,window=64,decode=false", scale = 0.5, sink = [4, 4, 4, 4], value_size = 8, window = [64, 64, 64, 64]}  // layers.0.self_attn <sparse_attention>
}
"""  # noqa: E501  lines of the text form are as long as they are


def test_golden() -> None:
    golden(PASS.configured({"method": "lambda_mask", "sink": 4, "window": 64}), BEFORE, AFTER)


def test_a_list_without_scores_serves_all_layers() -> None:
    after = sparse(layer_graph(3), method="lambda_mask")
    assert len(find(after, "span_blocks")) == len(find(after, "compact_blocks")) == 1
    assert len(find(after, "block_attention")) == 3
    scored = sparse(layer_graph(3), method="xattention")
    assert len(find(scored, "forced_blocks")) == 1 and len(find(scored, "antidiagonal_scores")) == 3


@pytest.mark.parametrize(
    ("options", "dense"),
    [
        ({}, []), ({"layers": "1,2"}, [0, 3]), ({"dense_layers": "0"}, [0]),
        ({"layers": "0,1", "dense_layers": "2"}, [2, 3]),
    ],
)  # fmt: skip
def test_layers(options: dict[str, object], dense: list[int]) -> None:
    after = sparse(layer_graph(4), method="mean_pool", **options)
    assert [n.attr("layer") for n in find(after, "cached_attention")] == dense
    assert len(find(after, "block_attention")) == 4 - len(dense)


def test_layers_of_a_method() -> None:
    after = sparse(layer_graph(4), method="triangle_mix")
    assert [n.attr("layer") for n in find(after, "cached_attention")] == [0, 1]
    after = sparse(layer_graph(4), method="triangle_mix", starting_layer=3)
    assert [n.attr("layer") for n in find(after, "block_attention")] == [3]
    after = sparse(layer_graph(4), method="masformer", full_layers="1,3", window=64)
    assert [n.attr("layer") for n in find(after, "cached_attention")] == [1, 3]
    after = sparse(layer_graph(4), method="quest")
    assert [n.attr("layer") for n in find(after, "cached_attention")] == [0, 1]


def test_two_requests_share_the_layers() -> None:
    first = sparse(layer_graph(3), method="xattention", layers="0")
    both = sparse(first, method="lambda_mask", layers="2")
    assert methods_of(describe_heads(both)) == {"xattention": 4, "dense": 4, "lambda_mask": 4}


def test_a_layer_that_does_not_exist() -> None:
    with pytest.raises(PassError, match="layers names layer 7; the attention layers are 0 to 1"):
        sparse(layer_graph(2), method="mean_pool", layers="1,7")
    with pytest.raises(UsageError, match="layer 1 is named in layers and in dense_layers"):
        sparse(layer_graph(2), method="mean_pool", layers="1", dense_layers="1")


@pytest.mark.parametrize(
    ("graph", "options", "reason"),
    [
        (layer_graph(attrs=", softcap = 30.0"), {"method": "xattention"},
         "it caps its logits at 30.0, which the scores of xattention know nothing of"),
        (layer_graph(rope=""), {"method": "prism"},
         "prism scores bands of a rotary embedding, and the queries come from none"),
        (layer_graph(rope="interleaved"), {"method": "prism"},
         "prism knows rotary embeddings in the half layout, and pairs here lie side by side"),
        (parse(layer_text(2).replace("layer = 1, scale", "window = 64, layer = 1, scale"), seed=0),
         {"method": "mean_pool", "layers": "1"}, "its sliding window of 64 keys is a budget already"),
    ],
)  # fmt: skip
def test_sites_that_cannot_be_rewritten_fail_by_name(graph: Graph, options: dict[str, object], reason: str) -> None:
    with pytest.raises(PassError) as caught:
        sparse(graph, **options)
    assert f": {reason}" in str(caught.value) and "layers." in str(caught.value)


def test_a_soft_cap_is_kept_where_no_scores_are() -> None:
    after = sparse(layer_graph(attrs=", softcap = 30.0"), method="lambda_mask")
    assert find(after, "block_attention")[0].attr("softcap") == 30.0


def test_layers_with_a_sliding_window_stay() -> None:
    mixed = layer_text(2).replace("layer = 1, scale", "window = 64, layer = 1, scale")
    after = sparse(parse(mixed, seed=0), method="mean_pool")
    assert [n.op for n in after.nodes if n.op.endswith("_attention")] == ["block_attention", "cached_attention"]


def test_a_model_of_sliding_windows_has_nothing_to_gain() -> None:
    with pytest.raises(PassError, match="every layer has a sliding window, which is a budget already"):
        sparse(layer_graph(2, attrs=", window = 64"), method="mean_pool")


def test_latent_attention_is_refused() -> None:
    text = layer_text().replace("%v: f32[T, 2, 8]", "%v: f32[T, 2, 4]").replace("value_size = 8", "value_size = 4")
    text = text.replace("%o0: f32[T, 4, 8]", "%o0: f32[T, 4, 4]")
    for method in METHODS:
        if method not in ("plan", "auto", "masformer", "quest", "seer_attention"):
            with pytest.raises(PassError, match="multi-head latent attention"):
                sparse(
                    parse(text, seed=0), method=method, **({"starting_layer": 0} if method == "triangle_mix" else {})
                )


def test_encoders_are_refused() -> None:
    text = "graph @g(%x: f32[T, 8]) -> (%y) {\n  phase packed\n  dim T in [1, 8]\n  %y: f32[T, 8] = neg(%x)\n}"
    with pytest.raises(PassError, match="needs a decoder with a KV cache; it has no attention"):
        sparse(parse(text), method="mean_pool")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "sparse_attention needs a method: sparse_attention:method=NAME"),
        ({"method": "xatention"}, "there is no method xatention of sparse attention\n  hint  did you mean xattention?"),
        ({"method": "sea"}, "the method sea is not built: it needs a trained estimator"),
        ({"method": "routing"}, "the method routing is not built: it needs centroids"),
        ({"method": "landmark"}, "the method landmark is not built: it needs landmark tokens"),
        ({"method": "triangle_mix", "last_n": 128},
         "sparse_attention has no option last_n\n  hint  did you mean last?"),
        ({"method": "xattention", "tresh": 1}, "sparse_attention has no option tresh"),
        ({"method": "xattention", "stride": 7}, "options of sparse_attention: stride divides 64, 7 does not"),
        ({"method": "lambda_mask", "window": 0}, "options of sparse_attention: window is at least 1, not 0"),
        ({"method": "mean_pool", "density": float("nan")},
         "options of sparse_attention: density is at least 0, not nan"),
    ],
)  # fmt: skip
def test_options_are_refused_by_name(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        PASS.configured(options)
    assert str(caught.value).startswith(f"UsageError: {message}")


def test_what_is_missing_is_asked_for() -> None:
    with pytest.raises(UsageError, match="the method masformer of sparse_attention needs full_layers and window"):
        sparse(layer_graph(), method="masformer")


def test_prompts_whole() -> None:
    assert whole_prompts(sparse(layer_graph(), method="minference"))
    for options in ({"per_chunk": True}, {"pattern": "a_shape"}, {"pattern": "block_sparse"}):
        assert not whole_prompts(sparse(layer_graph(), method="minference", **options))
    assert not whole_prompts(sparse(layer_graph(), method="xattention"))
    assert whole_prompts(sparse(layer_graph(), method="xattention", last=1))


def test_descriptions_read_back() -> None:
    for name, method in METHODS.items():
        if name in ("plan", "auto", "masformer", "seer_attention"):
            continue
        after = sparse(parse(to_text(layer_graph(3)), seed=0), method=name, **({"layers": "2"}))
        heads = describe_heads(parse(to_text(after)))
        assert [(h.layer, h.head) for h in heads] == [(i, h) for i in range(3) for h in range(4)]
        assert methods_of(heads) == ({"dense": 12} if name == "dense" else {"dense": 8, name: 4})
        assert heads[-1].options == method.options().own()


PLAN = """
[default]
method = "mean_pool"
density = 0.5
dense_until = 0

[[head]]
layer = 0
heads = [1]
method = "lambda_mask"
sink = 2
window = 70

[[head]]
layer = 0
heads = [0, 3]
method = "xattention"
dense_until = 0

[[head]]
layers = [1]
method = "dense"
"""


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_plan_gives_each_head_its_method(tmp_path: Path) -> None:
    after = sparse(layer_graph(3), method="plan", plan=write(tmp_path / "p.toml", PLAN))
    first = describe_heads(after)[:4]
    assert [h.method for h in first] == ["xattention", "lambda_mask", "mean_pool", "xattention"]
    assert [n.attr("layer") for n in find(after, "cached_attention")] == [1]
    attention = find(after, "block_attention")[0]
    assert attention.attr("window") == (0, 70, 0, 0) and attention.attr("sink") == (0, 2, 0, 0)
    sequences, steps = [tokens(300), tokens(70, 1)], [[256, 70], [44, 0]]
    mixed = run_steps(after, sequences, steps)
    for head, options in [
        (0, {"method": "xattention", "dense_until": 0}), (1, {"method": "lambda_mask", "sink": 2, "window": 70}),
        (2, {"method": "mean_pool", "density": 0.5, "dense_until": 0}),
    ]:  # fmt: skip
        alone = run_steps(sparse(layer_graph(3), **options), sequences, steps)
        for got, want in zip(mixed.out, alone.out, strict=True):
            assert np.array_equal(got[:, head], want[:, head])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("layer = 0\nheads = [1]", "heads = [1]", "an entry names its layer, or layers"),
        ("heads = [0, 3]", "heads = [0, 1]", "layer 0, head 1 is named twice"),
        ("sink = 2", "sunk = 2", "sparse_attention has no option sunk"),
        ('"lambda_mask"', '"lambda"', "there is no method lambda"),
        ('"lambda_mask"', '"masformer"', "sparse_attention has no option sink"),
        ("[default]", "[defualt]", "unknown key defualt"),
        ("heads = [1]", "heads = 1", "heads are numbers, counted from 0"),
        ("sink = 2", "sink = ", "the plan is not TOML"),
    ],
)
def test_a_plan_that_is_none(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PLAN
    path = write(tmp_path / "p.toml", PLAN.replace(old, new))
    with pytest.raises(UsageError) as caught:
        PASS.configured({"method": "plan", "plan": path})
    assert message in caught.value.what and path in caught.value.where


def test_a_plan_of_another_model(tmp_path: Path) -> None:
    path = write(tmp_path / "p.toml", PLAN)
    with pytest.raises(PassError, match="the plan names layer 1; the attention layers are 0 to 0"):
        sparse(layer_graph(1), method="plan", plan=path)
    with pytest.raises(PassError, match="the plan names head 3 of layer 0, which has 2"):
        sparse(layer_graph(3, heads=2), method="plan", plan=path)
    with pytest.raises(UsageError, match="cannot read the plan"):
        PASS.configured({"method": "plan", "plan": str(tmp_path / "none.toml")})
    with pytest.raises(UsageError, match="needs plan=FILE"):
        sparse(layer_graph(1), method="plan")


def test_heads_that_decode_differently_do_not_mix(tmp_path: Path) -> None:
    plan = (
        '[[head]]\nlayer = 0\nheads = [0]\nmethod = "quest"\n[[head]]\nlayer = 0\nheads = [1]\nmethod = "mean_pool"\n'
    )
    with pytest.raises(PassError, match="some of its heads decode by lists and others densely"):
        sparse(layer_graph(1), method="plan", plan=write(tmp_path / "p.toml", plan))


def test_leaving_every_layer_as_it_is_is_an_error() -> None:
    with pytest.raises(PassError, match=r"quest leaves every layer as it is: quest leaves the first 2 layers dense"):
        sparse(layer_graph(2), method="quest")


def test_heads_with_other_thresholds_share_their_scores(tmp_path: Path) -> None:
    text = "".join(
        f'[[head]]\nlayer = {layer}\nheads = [{head}]\nmethod = "xattention"\nthreshold = 0.{3 + head}\n'
        "dense_until = 0\n" for layer in range(2) for head in range(3)
    )  # fmt: skip
    after = sparse(layer_graph(2), method="plan", plan=write(tmp_path / "p.toml", text))
    assert len(find(after, "antidiagonal_scores")) == 2 and len(find(after, "select_top_p")) == 6
    mine, of = [tokens(330, 5)], {}
    for head in range(3):
        alone = sparse(layer_graph(2), method="xattention", threshold=0.3 + head / 10, dense_until=0)
        of[head] = run_steps(alone, mine, [[330]], layer=1).masks[0][:, head]
    got = run_steps(after, mine, [[330]], layer=1).masks[0]
    assert all(np.array_equal(got[:, head], of[head]) for head in range(3)) and got[:, 3].sum() == 21


TAKEN = [  # options that say how much is taken from scores
    ("xattention", "threshold", ("0.5", "0.9")), ("mean_pool", "density", ("0.3", "0.6")),
    ("mean_pool", "blocks", ("2", "3")), ("prism", "p", ("0.5", "0.9")), ("dhsa", "density", ("0.3", "0.6")),
    ("infllm_v2", "blocks", ("3", "4")), ("infllm", "blocks", ("3", "4")), ("longheads", "blocks", ("3", "4")),
]  # fmt: skip


@pytest.mark.parametrize(("method", "option", "values"), TAKEN)
def test_what_auto_counts_once_is_computed_once(
    tmp_path: Path, method: str, option: str, values: tuple[str, str]
) -> None:
    def ops(some: tuple[str, str]) -> Counter[str]:
        text = "".join(
            f'[[head]]\nlayer = 0\nheads = [{head}]\nmethod = "{method}"\n{option} = {value}\n'
            for head, value in enumerate(some)
        )
        after = sparse(layer_graph(1), method="plan", plan=write(tmp_path / "p.toml", text))
        return Counter(n.op for n in after.nodes if n.op.endswith("_scores") or n.op.startswith(("pool_", "softmax_")))

    assert option in RULES
    same, other = ops((values[0], values[0])), ops(values)
    assert same == other and same.total() > 0


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[3] / "examples" / "plans").glob("*.toml")))
def test_plans_of_the_examples(path: Path) -> None:
    plan = PASS.configured({"method": "plan", "plan": str(path)}).options
    assert len(getattr(plan, "planned")()) == 30  # noqa: B009  of the method's class
