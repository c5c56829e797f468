"""What the manifest says of cutting prompts, and what is refused because prompts would not fit."""

from __future__ import annotations

import pytest

from fretsaw.backends.program.prompt_rule import check_whole_prompts, prompt_rule
from fretsaw.backends.tvm.options import TvmOptions
from fretsaw.ir import Graph, parse
from fretsaw.ir.errors import LoweringError, UsageError

TEXT = """graph @sparse(%kv: handle<kv_cache>, %q: f32[T, 2, 8], %idx: i32[QB, 2, KB], %cnt: i32[QB, 2]) -> (%o) {{
  phase packed
  dim T in [1, 512]
  dim QB in [1, 512]
  dim KB in [1, 512]
  %o: f32[T, 2, 8] = block_attention(%kv, %q, %idx, %cnt) {{layer = 0, {more}scale = 0.5, value_size = 8{after}}}
}}
"""


def graph(*, whole: bool = False, method: str = "") -> Graph:
    text = TEXT.format(more=f'method = "{method}", ' if method else "", after=", whole_prompt = true" if whole else "")
    return parse(text)


def test_dense_programs_have_no_rule() -> None:
    dense = parse(
        "graph @dense(%x: f32[T]) -> (%y) {\n  phase packed\n  dim T in [1, 512]\n  %y: f32[T] = silu(%x)\n}\n"
    )
    assert prompt_rule(dense, TvmOptions(chunk_tokens=1)) == {}
    check_whole_prompts(dense, TvmOptions(), 8192)


def test_sparse_programs_cut_at_blocks() -> None:
    assert prompt_rule(graph(), TvmOptions()) == {"chunk_align": 64, "whole_prompts": False}
    assert prompt_rule(graph(whole=True), TvmOptions()) == {"chunk_align": 64, "whole_prompts": True}


def test_pages_are_blocks() -> None:
    with pytest.raises(LoweringError) as refused:
        prompt_rule(graph(), TvmOptions(page_tokens=32))
    assert refused.value.what == "sparse attention reads pages of the cache as blocks of 64 keys; a page has 32"


def test_short_steps_are_refused() -> None:
    assert prompt_rule(graph(), TvmOptions(chunk_tokens=128))
    with pytest.raises(UsageError) as refused:
        prompt_rule(graph(), TvmOptions(chunk_tokens=127))
    assert refused.value.what == "--chunk must be at least 128 tokens with sparse attention, is 127"


def test_steps_that_cannot_hold_a_whole_prompt_are_refused() -> None:
    check_whole_prompts(graph(), TvmOptions(), 8192)
    check_whole_prompts(graph(whole=True), TvmOptions(chunk_tokens=8192), 8192)
    with pytest.raises(UsageError) as refused:
        check_whole_prompts(graph(whole=True, method="minference"), TvmOptions(), 8192)
    assert refused.value.what == (
        "minference scores blocks with the last queries of a prompt, so a step has to hold a whole one: up to 8192 "
        "tokens, and --chunk is 512"
    )
    assert "--chunk 8192" in (refused.value.hint or "") and "per_chunk=true" in (refused.value.hint or "")
