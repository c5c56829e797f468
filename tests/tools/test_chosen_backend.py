"""``--backend`` and its short forms: one backend, options of its dataclass, every mistake with what there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from fretsaw.backends.backend import Backend, ModelFacts, Work
from fretsaw.backends.built import Built
from fretsaw.backends.lowering import Answer, Lowering
from fretsaw.backends.registry import GROUP, Registered, Registry
from fretsaw.ir import Graph
from fretsaw.ir.errors import UsageError
from fretsaw.ir.phases import legal_ops
from fretsaw.passes.api import Pass
from fretsaw.passes.canonical.cse import cse
from fretsaw.passes.fused.fold_norm_gain import fold_norm_gain
from fretsaw.tools import cli
from fretsaw.tools.chosen_backend import ChosenBackend, Short, choose, with_backend_passes


@dataclass(frozen=True)
class Options:
    size: int = 3
    names: tuple[str, ...] = ()


class Sheet(Backend[Options]):
    """A backend with passes of its own."""

    name, options, phase = "sheet", Options, "fused"

    def lowerings(self) -> Mapping[str, Answer]:
        return {op: Lowering("a line") for op in legal_ops(self.phase)}

    def passes(self, options: Options) -> tuple[Pass, ...]:
        return (fold_norm_gain,) if options.size > 3 else ()

    def settle(self, options: Options, model: ModelFacts) -> Options:
        return replace(options, size=max(options.size, model.context))

    def build(self, graph: Graph, options: Options, model: ModelFacts, work: Work) -> Built:
        raise NotImplementedError


sheet = Sheet()
REGISTRY = Registry({"sheet": Registered(EntryPoint("sheet", f"{__name__}:sheet", GROUP))})


def chosen(asked: str, *short: Short) -> ChosenBackend:
    return choose(asked, short, REGISTRY)


def refusal(asked: str, *short: Short) -> tuple[str, str, str]:
    with pytest.raises(UsageError) as error:
        chosen(asked, *short)
    return error.value.what, error.value.where, error.value.hint


def test_options_are_those_of_the_dataclass() -> None:
    found = chosen("sheet:size=7,names=a,b")
    assert found.options == Options(7, ("a", "b"))
    assert found.to_json() == {"name": "sheet", "options": {"size": 7, "names": ("a", "b")}}
    assert chosen("sheet").options == Options()
    assert chosen("sheet:size=7", Short("--name", "names", ("c",))).options == Options(7, ("c",))


def test_the_model_settles_options() -> None:
    assert chosen("sheet").settled(ModelFacts("decoder", 9)).options == Options(9)


def test_the_cpu_backend_settles_its_own() -> None:
    """Instruction sets once each and best first; a step holds the longest text of an encoder."""
    asked = choose("cpu:cpus=x86-64-v3,x86-64-v4,x86-64-v3,chunk_tokens=64")
    decoder, encoder = (asked.settled(ModelFacts(kind, 100)).to_json()["options"] for kind in ("decoder", "encoder"))
    assert isinstance(decoder, dict) and isinstance(encoder, dict)
    assert decoder["cpus"] == ("x86-64-v4", "x86-64-v3") and decoder["chunk_tokens"] == 64
    assert encoder["chunk_tokens"] == 100


def test_what_cannot_be_chosen() -> None:
    has = "size (an integer, 3), names (texts separated by commas, (empty))"
    assert refusal("shet") == ("there is no backend shet", "--backend shet", "did you mean sheet? there are: sheet")
    assert refusal("sheet:sise=3") == (
        "the backend sheet has no option sise", "--backend sheet:sise=3", f"did you mean size? it has: {has}"
    )  # fmt: skip
    assert refusal("sheet:size=big")[0] == 'option size of the backend sheet takes an integer, not "big"'
    assert refusal("sheet:size=1,size=2")[0] == "option size is given twice"
    assert refusal("sheet:")[0] == refusal(":size=1")[0].replace(":size=1", "sheet:")
    assert refusal("sheet:size=1", Short("--size", "size", 2)) == (
        "--size and --backend sheet:size=... say the same option", "--backend sheet:size=1", "leave one out"
    )  # fmt: skip
    assert refusal("sheet", Short("--depth", "depth", 2)) == (
        "--depth is short for the option depth, which the backend sheet has not",
        "--backend sheet",
        "it has size, names",
    )


def test_passes_of_the_backend_come_after_those_asked_for() -> None:
    few, own = chosen("sheet"), chosen("sheet:size=4")
    assert with_backend_passes([cse], few) == (cse,)
    assert with_backend_passes([cse], own) == (cse, fold_norm_gain)
    asked = replace(fold_norm_gain, origin="a user")
    assert with_backend_passes([asked, cse], own) == (asked, cse)  # asked for already
    apart = replace(cse, conflicts=("fold_norm_gain",))
    with pytest.raises(UsageError) as error:
        with_backend_passes([apart], own)
    assert "cse and fold_norm_gain exclude each other" in error.value.what and error.value.where == "the backend sheet"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--backend", "tpu"], "there is no backend tpu"),
        (["--backend", "cpu", "--backend", "cpu"], "--backend is given 2 times, and one backend makes an artifact"),
        (
            ["--backend", "cpu:chunk_tokens=9", "--chunk", "9"],
            "--chunk and --backend cpu:chunk_tokens=... say the same",
        ),
        (["--backend", "cpu:cpus=6502"], "must be one of x86-64-v4, x86-64-v3, is 6502"),
        (["--cpu", "6502"], "must be one of x86-64-v4, x86-64-v3, is 6502"),
        (["--chunk", "0"], "--chunk must be 1 to 65536 tokens, is 0"),
    ],
)
def test_the_command_refuses_before_any_work(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.run(["compile", "no-such-folder", "-o", str(tmp_path / "x.fsaw"), *argv]) == 2
    assert words in capsys.readouterr().err
