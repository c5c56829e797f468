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

from fretsaw.runtime import arguments
from fretsaw.runtime.batch import BatchOptions, Completed, Request, run
from fretsaw.runtime.closing import Closing
from fretsaw.runtime.embed import Text, Vectors, embed
from fretsaw.runtime.handle import Handle
from fretsaw.runtime.library import ON_TOKEN, GenerateOptions, GenerateResult, ModelOptions, check, load
from fretsaw.runtime.sampling import Sampling, native_options
from fretsaw.runtime.stream import iterate

Ids = arguments.Ids
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

    Sessions and batches keep what they need of a closed model until they are closed too. Any method may be called from
    any thread. An argument of the wrong kind or range is a TypeError or ValueError with its name, in all methods.

    Raises:
        RuntimeFailure: not an artifact, damaged, or not for this machine; in methods: the model was closed, or opened
            in another process that this one was forked from.
    """

    def __init__(self, path: str | Path, threads: int = 0, variant: str = "", verify: bool = False) -> None:
        self._library = load()
        count = arguments.integer("threads", threads, arguments.INT32)
        name = arguments.terminated("variant", variant)
        options = ModelOptions(ctypes.sizeof(ModelOptions), count, int(arguments.flag("verify", verify)), name)
        made = c_void_p()
        check(self._library.fsw_model_open(arguments.path("path", path), byref(options), byref(made)))
        self._handle = Handle("the model", made, self._library.fsw_model_close)
        self.info: Mapping[str, object] = json.loads(self._library.fsw_model_info(made))
        manifest = self.info["manifest"]
        assert isinstance(manifest, dict)
        self.manifest: Mapping[str, object] = manifest
        self.vocab_size = int(manifest["model"]["vocab_size"])
        self.context = int(manifest["model"]["context"])

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of ``text``."""
        raw = arguments.text("text", text)
        special = int(arguments.flag("add_special_tokens", add_special_tokens))
        ids, count = POINTER(c_int32)(), c_size_t()
        with self._handle as pointer:
            check(self._library.fsw_tokenize(pointer, raw, len(raw), special, byref(ids), byref(count)))
        return ids[: count.value]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of token ids."""
        tokens = arguments.ids("ids", ids)
        at = tokens.ctypes.data_as(POINTER(c_int32))
        skip = int(arguments.flag("skip_special_tokens", skip_special_tokens))
        text, size = c_void_p(), c_size_t()
        with self._handle as pointer:
            check(self._library.fsw_detokenize(pointer, at, tokens.size, skip, byref(text), byref(size)))
        return _text(text.value, size.value)

    def apply_chat(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The prompt for messages of ``role`` and ``content``; encode it without special tokens."""
        raw_roles, raw_contents = arguments.messages(messages)
        count = len(raw_roles)
        roles, contents = (c_char_p * count)(*raw_roles), (c_char_p * count)(*raw_contents)
        text, size = c_void_p(), c_size_t()
        with self._handle as pointer:
            check(self._library.fsw_apply_chat(pointer, roles, contents, count, byref(text), byref(size)))
        return _text(text.value, size.value)

    def session(self, context: int = 0) -> Session:
        """A new sequence with room for ``context`` tokens; 0 for the model's context."""
        return Session(self, context)

    def forward(self, ids: Sequence[int] | Ids) -> Logits:
        """Logits of every position of a fresh sequence, f32 ``[n, vocab]``."""
        tokens = arguments.ids("ids", ids)
        with self.session(max(1, tokens.size)) as session:
            return session.forward(tokens)

    def generate(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 128,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        result: Generation | None = None,
    ) -> Iterator[Token]:
        """Generate from a fresh sequence; ``result`` is filled in when the iterator ends.

        Between tokens the model is free for other calls, from the loop itself and from other threads.
        """
        ids = arguments.ids("prompt", self.encode(prompt) if isinstance(prompt, str) else prompt)
        room = max(1, min(self.context, ids.size + arguments.integer("max_new_tokens", max_new_tokens)))
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
        with self._handle as pointer:
            return embed(self._library, pointer, texts)

    def close(self) -> None:
        """Refuse further calls and free everything once calls, sessions and batches of the model have ended."""
        self._handle.close()


class Session(Closing):
    """One sequence of a model with its KV cache. Also a context manager. Use it from one thread at a time."""

    def __init__(self, model: Model, context: int) -> None:
        self._vocab_size = model.vocab_size
        self._library = load()
        tokens = arguments.integer("context", context)
        made = c_void_p()
        with model._handle as pointer:
            check(self._library.fsw_session_create(pointer, tokens, byref(made)))
        self._handle = Handle("the session", made, self._library.fsw_session_close)

    @property
    def length(self) -> int:
        """Tokens appended so far."""
        with self._handle as pointer:
            return int(self._library.fsw_session_length(pointer))

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache."""
        with self._handle as pointer:
            return int(self._library.fsw_session_kv_bytes(pointer))

    def reset(self) -> None:
        """Forget all tokens."""
        with self._handle as pointer:
            check(self._library.fsw_session_reset(pointer))

    def forward(self, ids: Sequence[int] | Ids, last_only: bool = False) -> Logits:
        """Append tokens; their logits, f32 ``[n, vocab]``, or ``[1, vocab]`` of the last one."""
        tokens = arguments.ids("ids", ids)
        rows = 0 if arguments.flag("last_only", last_only) else 1
        logits = np.empty((len(tokens) if rows else 1, self._vocab_size), dtype=np.float32)
        at, room = tokens.ctypes.data_as(POINTER(c_int32)), logits.ctypes.data_as(POINTER(c_float))
        with self._handle as pointer:
            check(self._library.fsw_forward(pointer, at, len(tokens), rows, room, logits.size))
        return logits

    def generate(
        self,
        prompt: Sequence[int] | Ids,
        max_new_tokens: int = 128,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        result: Generation | None = None,
    ) -> Iterator[Token]:
        """Append ``prompt`` and generate, one :class:`Token` at a time. Leaving the loop early cancels."""
        outcome = result if result is not None else Generation()
        tokens = arguments.ids("prompt", prompt)
        options = native_options(max_new_tokens, sampling, stop, ignore_eos)

        def produce(put: Callable[[Token], bool]) -> None:
            self._generate(tokens, options, outcome, put)

        for token in iterate(produce):
            if token.id >= 0:
                outcome.tokens.append(token.id)
            outcome.text += token.text
            yield token

    def _generate(
        self, prompt: Ids, options: GenerateOptions, outcome: Generation, put: Callable[[Token], bool]
    ) -> None:

        def on_token(_user: int | None, token: int, text: int | None, size: int) -> int:
            return int(put(Token(token, _text(text, size))))

        native = GenerateResult()
        at = prompt.ctypes.data_as(POINTER(c_int32))
        callback = ON_TOKEN(on_token)
        with self._handle as pointer:
            check(self._library.fsw_generate(pointer, at, prompt.size, byref(options), callback, None, byref(native)))
        outcome.finish = _FINISH[native.finish]
        outcome.prefill_ms, outcome.decode_ms = native.prefill_ms, native.decode_ms
        outcome.decode_steps = native.decode_steps

    def close(self) -> None:
        """Refuse further calls and free the KV cache once the call on its way, if any, has ended."""
        self._handle.close()


def _text(address: int | None, size: int) -> str:
    return ctypes.string_at(address, size).decode() if address and size else ""
