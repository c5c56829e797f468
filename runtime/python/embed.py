"""Vectors of an encoder: what :meth:`fretsaw.runtime.Model.embed` calls."""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_int64, c_size_t, c_void_p
from typing import cast

import numpy as np
import numpy.typing as npt

from fretsaw.runtime.arguments import ids, text
from fretsaw.runtime.library import check

Vectors = npt.NDArray[np.float32]
Text = str | Sequence[int] | npt.NDArray[np.integer]


def embed(library: ctypes.CDLL, model: c_void_p, texts: Sequence[Text]) -> Vectors:
    """Vectors f32 ``[len(texts), width]`` of texts, or of lists of token ids; see :meth:`Model.embed`."""
    if isinstance(texts, str):
        raise TypeError("texts must be a list of texts; for one text give [text]")
    # A decoder has width 0; its error comes from the call.
    vectors = np.empty((len(texts), int(library.fsw_embedding_width(model))), np.float32)
    room = vectors.ctypes.data_as(POINTER(c_float))
    kinds = {isinstance(t, str) for t in texts}
    if len(kinds) > 1:
        raise TypeError("texts must be all str or all lists of token ids")
    if kinds == {False}:
        arrays = [ids(f"texts[{i}]", cast("Sequence[int]", t)) for i, t in enumerate(texts)]
        offsets = np.cumsum([0, *(a.size for a in arrays)], dtype=np.int64)
        flat = np.concatenate(arrays)
        ids_at, offsets_at = flat.ctypes.data_as(POINTER(c_int32)), offsets.ctypes.data_as(POINTER(c_int64))
        check(library.fsw_embed(model, ids_at, offsets_at, len(texts), room, vectors.size))
        return vectors
    raw = [text(f"texts[{i}]", t) for i, t in enumerate(texts)]
    pointers, sizes = (c_char_p * len(raw))(*raw), (c_size_t * len(raw))(*map(len, raw))
    truncated = c_size_t()
    check(library.fsw_embed_texts(model, pointers, sizes, len(raw), room, vectors.size, byref(truncated)))
    if truncated.value:
        warnings.warn(f"{truncated.value} of {len(raw)} texts were cut to the model's context", stacklevel=3)
    return vectors
