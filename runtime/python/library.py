"""Finding and loading libfretsaw.so, and the C signatures of what it exports."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from ctypes import POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from pathlib import Path

from fretsaw.runtime.errors import RuntimeFailure

VERSION = (0, 1)  # major and minor that these signatures were written for


class ModelOptions(ctypes.Structure):
    """``fsw_model_options``."""

    _fields_ = (("struct_bytes", c_size_t), ("threads", c_int32), ("verify", c_int32), ("variant", c_char_p))


class GenerateOptions(ctypes.Structure):
    """``fsw_generate_options``."""

    _fields_ = (
        ("struct_bytes", c_size_t),
        ("max_new_tokens", c_int64),
        ("temperature", c_double),
        ("top_k", c_int64),
        ("top_p", c_double),
        ("min_p", c_double),
        ("repetition_penalty", c_double),
        ("seed", c_uint64),
        ("ignore_eos", c_int32),
        ("stop", POINTER(c_char_p)),
        ("stop_count", c_size_t),
    )


class GenerateResult(ctypes.Structure):
    """``fsw_generate_result``."""

    _fields_ = (
        ("finish", c_int32),
        ("prefill_ms", c_double),
        ("decode_ms", c_double),
        ("decode_steps", c_int64),
    )


# The text is a pointer and a length: it may hold zero bytes.
ON_TOKEN = ctypes.CFUNCTYPE(c_int32, c_void_p, c_int32, c_void_p, c_size_t)

_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "fsw_version": (None, (POINTER(c_int32),)),
    "fsw_last_error": (c_char_p, ()),
    "fsw_status_name": (c_char_p, (c_int32,)),
    "fsw_model_open": (c_int32, (c_char_p, POINTER(ModelOptions), POINTER(c_void_p))),
    "fsw_model_close": (None, (c_void_p,)),
    "fsw_verify": (c_int32, (c_char_p,)),
    "fsw_check_tokenizer": (c_int32, (c_char_p, c_size_t)),
    "fsw_check_chat_template": (c_int32, (c_char_p, c_size_t)),
    "fsw_model_info": (c_char_p, (c_void_p,)),
    "fsw_embedding_width": (c_int64, (c_void_p,)),
    "fsw_embed": (
        c_int32,
        (c_void_p, POINTER(c_int32), POINTER(c_int64), c_size_t, POINTER(c_float), c_size_t),
    ),
    "fsw_embed_texts": (
        c_int32,
        (c_void_p, POINTER(c_char_p), POINTER(c_size_t), c_size_t, POINTER(c_float), c_size_t, POINTER(c_size_t)),
    ),
    "fsw_tokenize": (
        c_int32,
        (c_void_p, c_char_p, c_size_t, c_int32, POINTER(POINTER(c_int32)), POINTER(c_size_t)),
    ),
    "fsw_detokenize": (
        c_int32,
        (c_void_p, POINTER(c_int32), c_size_t, c_int32, POINTER(c_void_p), POINTER(c_size_t)),
    ),
    "fsw_apply_chat": (
        c_int32,
        (c_void_p, POINTER(c_char_p), POINTER(c_char_p), c_size_t, POINTER(c_void_p), POINTER(c_size_t)),
    ),
    "fsw_session_create": (c_int32, (c_void_p, c_int64, POINTER(c_void_p))),
    "fsw_session_close": (None, (c_void_p,)),
    "fsw_session_reset": (c_int32, (c_void_p,)),
    "fsw_session_length": (c_int64, (c_void_p,)),
    "fsw_session_kv_bytes": (c_uint64, (c_void_p,)),
    "fsw_forward": (c_int32, (c_void_p, POINTER(c_int32), c_size_t, c_int32, POINTER(c_float), c_size_t)),
    "fsw_batch_create": (c_int32, (c_void_p, c_void_p, POINTER(c_void_p))),
    "fsw_batch_close": (None, (c_void_p,)),
    "fsw_batch_submit": (
        c_int32,
        (c_void_p, POINTER(c_int32), c_size_t, POINTER(GenerateOptions), c_double, POINTER(c_int64)),
    ),
    "fsw_batch_cancel": (c_int32, (c_void_p, c_int64)),
    "fsw_batch_step": (c_int32, (c_void_p, POINTER(c_int32))),
    "fsw_batch_next": (c_int32, (c_void_p, c_void_p)),
    "fsw_batch_get_stats": (c_int32, (c_void_p, c_void_p)),
    "fsw_generate": (
        c_int32,
        (
            c_void_p,
            POINTER(c_int32),
            c_size_t,
            POINTER(GenerateOptions),
            ON_TOKEN,
            c_void_p,
            POINTER(GenerateResult),
        ),
    ),
}


def native_folder() -> Path:
    """Folder of libfretsaw.so and fretsaw-run: FRETSAW_BUILD, the wheel's, or the build tree's.

    Raises:
        RuntimeFailure: none of them has the library.
    """
    chosen = os.environ.get("FRETSAW_BUILD")
    spec = importlib.util.find_spec("fretsaw")
    packages = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
    here = Path(__file__).resolve()
    folders = [Path(chosen)] if chosen else [*(p / "_native" for p in packages), here.parents[2] / "build/cmake"]
    for folder in folders:
        if (folder / "libfretsaw.so").is_file():
            return folder
    looked = ", ".join(map(str, folders))
    raise RuntimeFailure(3, "file_not_found", f"libfretsaw.so not found in {looked}; build it or set FRETSAW_BUILD")


def library_path() -> Path:
    """Path of libfretsaw.so; see :func:`native_folder`."""
    return native_folder() / "libfretsaw.so"


@functools.cache
def load() -> ctypes.CDLL:
    """The loaded library with typed functions. Raises RuntimeFailure when it is absent or another version."""
    path = library_path()
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name, None)
        if function is None:
            what = f"{path} is older than this package: it has no {name}; build it again"
            raise RuntimeFailure(11, "unsupported", what)
        function.restype = result
        function.argtypes = arguments
    version = (c_int32 * 3)()
    library.fsw_version(version)
    if tuple(version[:2]) != VERSION:
        found = ".".join(map(str, version))
        raise RuntimeFailure(11, "unsupported", f"{path} has version {found}, this package needs 0.1.x")
    return library


def check(code: int) -> None:
    """Raise RuntimeFailure with the runtime's words unless ``code`` is 0."""
    if code:
        library = load()
        name = library.fsw_status_name(code).decode()
        raise RuntimeFailure(code, name, library.fsw_last_error().decode(errors="replace"))
