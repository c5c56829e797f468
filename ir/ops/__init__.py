"""The op catalogue: one file per family. Importing this package declares every op."""

from fretsaw.ir.ops import (  # noqa: F401
    attention,
    block_attention,
    cache,
    elementwise,
    linear,
    moe,
    norm,
    reduce,
    rope,
    segments,
    select,
    select_extra,
    select_lines,
    select_rules,
    select_scores,
    select_windows,
    shape,
)
