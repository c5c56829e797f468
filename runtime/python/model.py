"""Model and Session: what a Python program does with an artifact."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ctypes import POINTER, byref, c_char_p, c_float, c_int32, c_size_t, c_void_p
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fretsaw.runtime.batch import BatchOptions, Completed, Request, run
from fretsaw.runtime.closing import Closing
from fretsaw.runtime.embed import Text, Vectors, embed
from fretsaw.runtime.library import ON_TOKEN, GenerateResult, ModelOptions, check, load
from fretsaw.runtime.sampling import Sampling, native_options
from fretsaw.runtime.stream import iterate

Ids = npt.NDArray[np.int32]
Logits = npt.NDArray[np.float32]
_FINISH = ("stop", "length", "stop_string", "cancelled")


@dataclass(frozen=True)
class Token:
    """A generated token and the text that became certain with it; id -1: only text that was held back."""

    id: int
    text: str


@dataclass
class Generation:
    """What a finished generation tells: ``finish`` is stop, length, stop_string or cancelled."""

    finish: str = ""
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    decode_steps: int = 0
    tokens: list[int] = field(default_factory=list)
    text: str = ""


class Model(Closing):
    """A loaded artifact. Also a context manager.

    Args:
        path: the artifact.
        threads: 0 for one per physical core.
        variant: code variant, e.g. ``"x86-64-v3"``; empty for the best one this machine runs.
        verify: check the digest of every section first.

    Raises:
        RuntimeFailure: not an artifact, damaged, or not for this machine.
    """

    def __init__(self, path: str | Path, threads: int = 0, variant: str = "", verify: bool = False) -> None:
        self._handle = c_void_p()
        self._library = load()
        options = ModelOptions(ctypes.sizeof(ModelOptions), threads, int(verify), variant.encode())
        check(self._library.fsw_model_open(str(path).encode(), byref(options), byref(self._handle)))
        self.info: Mapping[str, object] = json.loads(self._library.fsw_model_info(self._handle))
        manifest = self.info["manifest"]
        assert isinstance(manifest, dict)
        self.manifest: Mapping[str, object] = manifest
        self.vocab_size = int(manifest["model"]["vocab_size"])
        self.context = int(manifest["model"]["context"])

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text``."""
        raw = text.encode()
        ids, count = POINTER(c_int32)(), c_size_t()
        check(
            self._library.fsw_tokenize(self._handle, raw, len(raw), int(add_special_tokens), byref(ids), byref(count))
        )
        return ids[: count.value]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids."""
        array = (c_int32 * len(ids))(*ids)
        text, size = c_void_p(), c_size_t()
        check(
            self._library.fsw_detokenize(
                self._handle, array, len(ids), int(skip_special_tokens), byref(text), byref(size)
            )
        )
        return _text(text.value, size.value)

    def apply_chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt for messages of ``role`` and ``content``; encode it without special tokens."""
        roles = (c_char_p * len(messages))(*(m["role"].encode() for m in messages))
        contents = (c_char_p * len(messages))(*(m["content"].encode() for m in messages))
        text, size = c_void_p(), c_size_t()
        check(self._library.fsw_apply_chat(self._handle, roles, contents, len(messages), byref(text), byref(size)))
        return _text(text.value, size.value)

    def session(self, context: int = 0) -> Session:
        """A new sequence with room for ``context`` tokens; 0 for the model's context."""
        return Session(self, context)

    def forward(self, ids: Sequence[int] | Ids) -> Logits:
        """Logits of every position of a fresh sequence, f32 ``[n, vocab]``."""
        with self.session(max(1, len(ids))) as session:
            return session.forward(ids)

    def generate(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 128,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        result: Generation | None = None,
    ) -> Iterator[Token]:
        """Generate from a fresh sequence; ``result`` is filled in when the iterator ends."""
        ids = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        room = max(1, min(self.context, len(ids) + max_new_tokens))
        with self.session(room) as session:
            yield from session.generate(ids, max_new_tokens, sampling, stop, ignore_eos, result)

    def batch(
        self,
        requests: Iterable[Request | str | Sequence[int]],
        options: BatchOptions | None = None,
        ordered: bool = True,
    ) -> Iterator[Completed]:
        """Run many requests at once; each gets the tokens that it gets alone.

        Requests are taken as there is room for them. Results come in the order of the requests, or as they end. A
        request that cannot be done has an ``error`` in its result, the others go on. Leaving the loop early cancels.
        """
        return run(self, requests, options or BatchOptions(), ordered)

    def embed(self, texts: Sequence[Text]) -> Vectors:
        """Vectors of an encoder, f32 ``[len(texts), width]``; other Python threads go on meanwhile.

        A text's vector is the same bits alone and beside any others. Texts over the model's context are cut to it, with
        a warning that counts them; token ids (special ones included) over it are an error.

        Args:
            texts: All str, or all token ids.

        Raises:
            RuntimeFailure: the model is a decoder, an id is outside the vocabulary, or there are too many.
            TypeError: a single str, or a mix.
        """
        return embed(self._library, self._handle, texts)

    def close(self) -> None:
        """Free everything; sessions must be closed first."""
        if self._handle:
            self._library.fsw_model_close(self._handle)
            self._handle = c_void_p()


class Session(Closing):
    """One sequence of a model with its KV cache. Also a context manager. Use it from one thread at a time."""

    def __init__(self, model: Model, context: int) -> None:
        self._model = model  # keeps it alive
        self._library = load()
        self._handle = c_void_p()
        check(self._library.fsw_session_create(model._handle, context, byref(self._handle)))

    @property
    def length(self) -> int:
        """Tokens appended so far."""
        return int(self._library.fsw_session_length(self._handle))

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache."""
        return int(self._library.fsw_session_kv_bytes(self._handle))

    def reset(self) -> None:
        """Forget all tokens."""
        check(self._library.fsw_session_reset(self._handle))

    def forward(self, ids: Sequence[int] | Ids, last_only: bool = False) -> Logits:
        """Append tokens; their logits, f32 ``[n, vocab]``, or ``[1, vocab]`` of the last one."""
        tokens = np.ascontiguousarray(ids, dtype=np.int32)
        logits = np.empty((1 if last_only else len(tokens), self._model.vocab_size), dtype=np.float32)
        check(
            self._library.fsw_forward(
                self._handle,
                tokens.ctypes.data_as(POINTER(c_int32)),
                len(tokens),
                0 if last_only else 1,
                logits.ctypes.data_as(POINTER(c_float)),
                logits.size,
            )
        )
        return logits

    def generate(
        self,
        prompt: Sequence[int],
        max_new_tokens: int = 128,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        result: Generation | None = None,
    ) -> Iterator[Token]:
        """Append ``prompt`` and generate, one :class:`Token` at a time. Leaving the loop early cancels."""
        outcome = result if result is not None else Generation()

        def produce(put: Callable[[Token], bool]) -> None:
            self._generate(list(prompt), max_new_tokens, sampling, stop, ignore_eos, outcome, put)

        for token in iterate(produce):
            if token.id >= 0:
                outcome.tokens.append(token.id)
            outcome.text += token.text
            yield token

    def _generate(
        self,
        prompt: list[int],
        max_new_tokens: int,
        sampling: Sampling | None,
        stop: Sequence[str],
        ignore_eos: bool,
        outcome: Generation,
        put: Callable[[Token], bool],
    ) -> None:
        options = native_options(max_new_tokens, sampling, stop, ignore_eos)

        def on_token(_user: int | None, token: int, text: int | None, size: int) -> int:
            return int(put(Token(token, _text(text, size))))

        native = GenerateResult()
        tokens = (c_int32 * len(prompt))(*prompt)
        callback = ON_TOKEN(on_token)
        check(
            self._library.fsw_generate(self._handle, tokens, len(prompt), byref(options), callback, None, byref(native))
        )
        outcome.finish = _FINISH[native.finish]
        outcome.prefill_ms, outcome.decode_ms = native.prefill_ms, native.decode_ms
        outcome.decode_steps = native.decode_steps

    def close(self) -> None:
        """Free the KV cache."""
        if self._handle:
            self._library.fsw_session_close(self._handle)
            self._handle = c_void_p()


def _text(address: int | None, size: int) -> str:
    return ctypes.string_at(address, size).decode() if address and size else ""
