"""Every rule of docs/program.md: a good program passes, and one that breaks the rule is refused by what it broke."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fretsaw.backends.program.entry import Argument, Array, Call, Entry, StepProgram
from fretsaw.backends.program.verify import Beside, verify_program
from fretsaw.ir.dims import sym
from fretsaw.ir.errors import ArtifactError
from tests.backends.program.small import BESIDE, CALLS, ENTRY, PROGRAM, SLOTS, VALUES, R, T, cache, tensor, value

Change = Callable[[Entry], Entry]
# Three of it have 165 terms.
WIDE = T + R + sym("B") + sym("QB") + sym("KB") + T * R + R * R + T * T + 1


def with_value(i: int, **changes: object) -> Change:
    made = replace(VALUES[i], **changes)  # type: ignore[arg-type]
    return lambda e: replace(e, values=(*VALUES[:i], made, *VALUES[i + 1 :]))


def with_call(i: int, **changes: object) -> Change:
    made = replace(CALLS[i], **changes)  # type: ignore[arg-type]
    return lambda e: replace(e, calls=(*CALLS[:i], made, *CALLS[i + 1 :]))


def with_calls(*calls: Call) -> Change:
    return lambda e: replace(e, calls=calls)


def test_a_good_program_passes() -> None:
    verify_program(PROGRAM, BESIDE)
    verify_program(PROGRAM, replace(BESIDE, kernels=None))


BROKEN: dict[str, tuple[Change, str]] = {
    "an input in a slot": (with_value(0, slot=0), "is an input and has a place in the workspace"),
    "an input that is a reshape": (with_value(0, of=3), "is an input and has a place in the workspace"),
    "an input of no name": (with_value(0, name="token"), "an input that no caller binds"),
    "an input of another type": (with_value(0, dtype="f32"), "an input that no caller binds"),
    "an input twice": (lambda e: replace(e, inputs=(0, 1, 1)), "an input is listed twice"),
    "an input that is not there": (lambda e: replace(e, inputs=(0, 7)), "there is no value 7, only 7"),
    "two inputs of one name": (with_value(1, name="tokens"), "an input is listed twice"),
    "an input of an encoder": (with_value(1, name="cu"), "an input that no caller binds"),
    "an input of two axes": (with_value(0, shape=(T, 2)), "an input that no caller binds"),
    "more bytes than a number": (with_value(5, shape=(2**50, 8)), "value 5 (mask) has 2^53 elements or bytes, or more"),
    "too high a degree": (with_value(5, shape=(T * T * T, T * T * T, T * T * T)), "or a size of too many terms"),
    "too many terms": (with_value(5, shape=(WIDE, WIDE, WIDE)), "or a size of too many terms"),
    "a value without a place": (with_value(2, slot=None), "must have either a slot or a value"),
    "a value in two places": (with_value(4, slot=0), "must have either a slot or a value"),
    "a slot that is not there": (with_value(2, slot=3), "there is no slot 3, only 3"),
    "a value too large by rows": (with_value(2, shape=(T, 9)), "36*T bytes does not fit slot 1"),
    "a value too large by a constant": (lambda e: replace(e, slots=(T * 40, T * 31 + 80, R * 20)), "fit slot 1"),
    "a value of other symbols": (with_value(2, shape=(R, 8)), "32*R bytes does not fit slot 1"),
    "a value wider by its type": (with_value(5, dtype="i64", shape=(T, 5)), "40*T bytes does not fit slot 1"),
    "a reshape of nothing": (with_value(4, of=7), "there is no value 7"),
    "a reshape of itself": (with_value(4, of=4), "is no reshape of value 4"),
    "a reshape of another type": (with_value(4, dtype="i32"), "is no reshape of value 3"),
    "a reshape of more": (with_value(4, shape=(T, 9)), "is no reshape of value 3"),
    "a reshape of other symbols": (with_value(4, shape=(R, 8)), "is no reshape of value 3"),
    "an unknown symbol": (lambda e: replace(e, symbols=("N", "R", "T")), "no step has the symbol 'N'"),
    "no output": (lambda e: replace(e, outputs=()), "has 0 outputs, must have one"),
    "two outputs": (lambda e: replace(e, outputs=(6, 3)), "has 2 outputs, must have one"),
    "an output that is an input": (lambda e: replace(e, outputs=(1,)), "the output must be an f32 array"),
    "an output of another type": (lambda e: replace(e, outputs=(5,)), "the output must be an f32 array"),
    "an output that is not there": (lambda e: replace(e, outputs=(9,)), "there is no value 9"),
    "an output that nobody makes": (with_calls(*CALLS[:3]), "no launch makes the output, value 6"),
    "a value that nobody makes": (with_call(0, args=(value(0), value(5))), "reads value 2 (h), which is not made yet"),
    "an unread value that nobody makes": (
        lambda e: replace(e, values=(*VALUES, Array("x", "f32", (T,), 0))), "no launch makes value 7 (x)",
    ),
    "an unknown kernel": (with_call(1, kernel="attend2"), "launch 1 (attend2): the code has no such kernel"),
    "an unknown value": (with_call(1, args=(value(7), value(3))), "launch 1 (attend): there is no value 7"),
    "an unknown tensor": (with_call(0, args=(tensor(1), value(2))), "there is no tensor 1, only 1"),
    "an unknown cache array": (with_call(1, args=(cache("key_bounds"), value(3))), "no cache array 'key_bounds'"),
    "a launch that makes a tensor": (with_call(0, args=(value(2), tensor(0))), "makes a tensor"),
    "a launch that makes a number": (with_call(0, args=(value(2), Argument("int", 0))), "makes a int"),
    "a launch that makes an input": (with_call(0, args=(value(0),)), "makes value 0, which is an input or a reshape"),
    "a launch that makes a reshape": (with_call(2, args=(value(4),)), "makes value 4, which is an input or a reshape"),
    "a value made twice": (with_call(2, args=(value(3),)), "makes value 3 (o) again"),
    "a value made twice by one launch": (with_call(0, args=(value(2), value(2)), made=2), "makes value 2 (h) again"),
    "two values of one launch in one slot": (
        with_calls(Call("look", (value(2), value(5)), 2), CALLS[3]), "makes values 2 and 5 in one slot, 1",
    ),
    "a value and an unread one of one launch in one slot": (
        with_calls(CALLS[0], CALLS[1], replace(CALLS[2], args=(value(5), value(7)), made=2), CALLS[3]),
        "makes value 7 where value 5 is still needed",
    ),
    "launches in another order": (with_calls(CALLS[1], CALLS[0], *CALLS[2:]), "reads value 2 (h), which is not made"),
    "a reshape read before its value is made": (with_calls(CALLS[2], *CALLS[:2], CALLS[3]), "reads value 4 (o.flat)"),
    "a value written over while it is read": (
        with_call(3, args=(value(2), value(4), value(5), value(1), value(6))),
        "makes value 5 where value 2 is still needed, slot 1",
    ),
    "a launch that writes over what it reads": (
        lambda e: replace(with_value(3, slot=1)(e), slots=(T * 40, T * 40, R * 20)),
        "makes value 3 where value 2 is still needed, slot 1",
    ),
    "a reshaped value written over": (
        lambda e: replace(with_value(5, slot=0)(e)), "makes value 5 where value 3 is still needed, slot 0",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused(name: str) -> None:
    change, words = BROKEN[name]
    entry = change(ENTRY)
    if name == "a value and an unread one of one launch in one slot":
        entry = replace(entry, values=(*VALUES, Array("spare", "i8", (T, 4), 1)))
    with pytest.raises(ArtifactError) as caught:
        verify_program(StepProgram((entry,)), BESIDE)
    assert words in caught.value.what and caught.value.what.startswith("step program: step: ")


def test_the_output_is_alive_to_the_end() -> None:
    late = Array("late", "f32", (R, 5), 2)
    entry = replace(ENTRY, values=(*VALUES, late), calls=(*CALLS, Call("look", (value(1), value(7)), 1)))
    with pytest.raises(ArtifactError, match="makes value 7 where value 6 is still needed"):
        verify_program(StepProgram((entry,)), BESIDE)


def test_what_the_manifest_says_of_the_program() -> None:
    with pytest.raises(ArtifactError, match="the manifest names the entry step_dense, which is not there"):
        verify_program(PROGRAM, replace(BESIDE, entries=("step", "step_dense")))
    with pytest.raises(ArtifactError, match="two entries have one name: step, step"):
        verify_program(StepProgram((ENTRY, ENTRY)), BESIDE)
    with pytest.raises(ArtifactError, match="there is no entry"):
        verify_program(StepProgram(()), BESIDE)
    manifest = {
        "weights": {"tensors": [{}, {}, {}]},
        "program": {"entry": "step", "dense": {"entry": "step_dense"}},
        "kv": {"layers": 1, "planes": [{"name": "k_pages"}, {"name": "v_pages"}, {"name": "key_bounds"}]},
    }
    wide = Beside.of(manifest)
    assert (wide.tensors, tuple(wide.entries)) == (3, ("step", "step_dense")) and "key_bounds" in wide.cache
    assert Beside.of({**manifest, "kv": {}}).cache == ()
    assert sym("T") == T and SLOTS[0] == T * 40
