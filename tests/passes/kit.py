"""What the tests of passes share: golden texts, random inputs, errors in units of rounding."""

from __future__ import annotations

from fretsaw.passes.kit.testing import (
    SIZES,
    equivalent,
    error_in_eps,
    feed,
    golden,
    named,
    read,
    untouched,
)
from fretsaw.passes.kit.testing import sorted_consts as sorted_nodes

__all__ = ["SIZES", "equivalent", "error_in_eps", "feed", "golden", "named", "read", "sorted_nodes", "untouched"]
