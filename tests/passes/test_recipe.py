"""Recipes: what they say, every refusal with its line, and passes that do not go together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fretsaw.ir import parse
from fretsaw.ir.errors import UsageError
from fretsaw.passes.api import Pass
from fretsaw.passes.kit.compose import check_together, compose
from fretsaw.passes.kit.recipe import Gates, Recipe, Step, load_recipe, parse_step
from fretsaw.passes.kit.registry import Registry
from fretsaw.passes.pipeline import run_pipeline
from tests.passes.llama_text import llama

RECIPE = """# what we ship
plugins = ["more/mine.py"]

[[pass]]
name = "merge_qkv"

[[pass]]
name = "mine"
options = { strength = 2.0, layers = [0, 1], mode = "a \\"b\\"" }

[gates]
max_kl = 0.01
min_top1 = 1
"""


def load(tmp_path: Path, text: str) -> Recipe:
    path = tmp_path / "r.toml"
    path.write_text(text)
    return load_recipe(path)


def test_everything_a_recipe_says(tmp_path: Path) -> None:
    recipe = load(tmp_path, RECIPE)
    options = {"strength": 2.0, "layers": [0, 1], "mode": 'a "b"'}
    assert recipe == Recipe(
        (Step("merge_qkv"), Step("mine", options)), Gates(0.01, 1.0), (tmp_path / "more" / "mine.py",)
    )
    assert recipe.steps[1].place.where == f"{tmp_path}/r.toml:8"
    assert recipe.steps[1].place.context == '    7  [[pass]]\n>   8  name = "mine"\n    9  ' + RECIPE.splitlines()[8]


def test_toml_and_back(tmp_path: Path) -> None:
    recipe = load(tmp_path, RECIPE)
    again = load(tmp_path, recipe.to_toml())
    assert again == recipe and again.to_toml() == recipe.to_toml()
    assert load(tmp_path, Recipe().to_toml()) == Recipe() == load(tmp_path, "")


def test_inline_passes_have_lines_too(tmp_path: Path) -> None:
    recipe = load(tmp_path, 'pass = [\n  { name = "cse" },\n  { name = "dce" },\n]\n')
    assert [s.place.where for s in recipe.steps] == [f"{tmp_path}/r.toml:2", f"{tmp_path}/r.toml:3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[pass]]\nname = \n", "the recipe is not TOML: Invalid value\n  at    R:2\n    |   1  [[pass]]\n"
                                "  > |   2  name ="),
        ("plugin = []\n", "unknown key plugin\n  at    R:1\n  > |   1  plugin = []\n"
                          "  hint  did you mean plugins? keys: plugins, pass, gates"),
        ('[[pass]]\nname = "cse"\noption = {}\n', "unknown key option\n  at    R:3\n    |   2  name = \"cse\"\n"
         "  > |   3  option = {}\n  hint  did you mean options? keys: name, options"),
        ('[[pass]]\nname = "a"\n\n[[pass]]\noptions = {}\n', "a pass needs a name\n  at    R:4\n    |   3\n"
         "  > |   4  [[pass]]\n    |   5  options = {}\n  hint  write name = \"...\" below [[pass]]"),
        ('[[pass]]\nname = "a"\noptions = 3\n', "options of a are a table\n  at    R:3\n    |   2  name = \"a\"\n"
         "  > |   3  options = 3"),
        ("[pass]\nname = \"a\"\n", "every pass is a table: write [[pass]]\n  at    R:1\n  > |   1  [pass]\n"
                                   "    |   2  name = \"a\""),
        ("plugins = \"a.py\"\n", "plugins is a list of file names\n  at    R:1\n  > |   1  plugins = \"a.py\""),
        ("[gates]\nmax_kl = \"low\"\n", "max_kl is a number, 0 or more\n  at    R:2\n    |   1  [gates]\n"
                                        "  > |   2  max_kl = \"low\""),
        ("[gates]\nmax_kl = -1\n", "max_kl is a number, 0 or more\n  at    R:2\n    |   1  [gates]\n"
                                   "  > |   2  max_kl = -1"),
        ("[gates]\nmin_top1 = 99\n", "min_top1 is a share of tokens, 0 to 1\n  at    R:2\n    |   1  [gates]\n"
                                     "  > |   2  min_top1 = 99"),
        ("[gates]\nmax_kI = 1\n", "unknown key max_kI\n  at    R:2\n    |   1  [gates]\n  > |   2  max_kI = 1\n"
                                  "  hint  did you mean max_kl? keys: max_kl, min_top1"),
    ],
)  # fmt: skip
def test_refusals_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(tmp_path, text)
    assert str(error.value).replace(f"{tmp_path}/r.toml", "R") == f"UsageError: {message}"


def test_unreadable_recipes(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        load_recipe(tmp_path / "none.toml")
    assert str(error.value) == f"UsageError: cannot read the recipe {tmp_path}/none.toml: No such file or directory"
    (tmp_path / "b.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="b.toml: it is not UTF-8 text$"):
        load_recipe(tmp_path / "b.toml")


def test_steps_of_the_command_line() -> None:
    assert parse_step("a") == Step("a") and parse_step("a:k=1,2,s=x") == Step("a", {"k": "1,2", "s": "x"})
    for text, message in [
        ("", '--pass wants NAME or NAME:option=value,..., not ""'),
        ("a:", '--pass wants NAME or NAME:option=value,..., not "a:"'),
        ("a:b", 'option "b" has no value\n  at    --pass a:b\n  hint  write NAME:option=value,option=value'),
    ]:
        with pytest.raises(UsageError) as error:
            parse_step(text)
        assert str(error.value) == f"UsageError: {message}"


def test_unknown_passes_and_options_name_the_line(tmp_path: Path) -> None:
    recipe = load(tmp_path, '[[pass]]\nname = "raise_gleu"\n')
    with pytest.raises(UsageError) as error:
        compose(recipe, registry=Registry.built_in())
    assert str(error.value) == (
        f"UsageError: there is no pass raise_gleu\n  at    {tmp_path}/r.toml:2\n    |   1  [[pass]]\n"
        '  > |   2  name = "raise_gleu"\n'
        "  hint  did you mean raise_gelu? `fretsaw passes` lists them, --plugin FILE adds some"
    )
    recipe = load(tmp_path, '[[pass]]\nname = "cse"\noptions = { x = 1 }\n')
    with pytest.raises(UsageError) as error:
        compose(recipe, registry=Registry.built_in())
    assert str(error.value) == (
        f"UsageError: cse takes no options, got x\n  at    {tmp_path}/r.toml:2\n    |   1  [[pass]]\n"
        '  > |   2  name = "cse"\n    |   3  options = { x = 1 }\n  hint  see `fretsaw passes cse`'
    )


def named(name: str, phase: str = "fused", **rules: object) -> Pass:
    return replace(Pass(name, "", "bits", phase), **rules)  # type: ignore[arg-type]


def together(tmp_path: Path, *passes: Pass) -> str:
    """The message for a recipe that asks for ``passes`` in this order; empty when they go together."""
    steps = load(tmp_path, "".join(f'[[pass]]\nname = "{p.name}"\n' for p in passes)).steps
    pipeline = {"canonical": (named("norms", "canonical"),), "fused": (named("merge"),)}
    try:
        check_together(steps, passes, pipeline)
    except UsageError as error:
        return "\n".join(filter(None, [error.what, error.where.replace(f"{tmp_path}/", ""), error.hint]))
    return ""


def test_order(tmp_path: Path) -> None:
    fold, turn = named("fold"), named("turn", after=("fold",))
    assert together(tmp_path, fold, turn) == ""
    assert together(tmp_path, turn, fold) == (
        "turn has to run after fold, which comes later\nr.toml:2\nask for fold first"
    )
    assert together(tmp_path, turn) == (
        "turn has to run after fold, which is not asked for\nr.toml:2\n"
        "ask for fold first: --pass fold, or a [[pass]] above this one"
    )
    assert together(tmp_path, named("turn", after=("norms", "merge"))) == ""  # both are part of every compile
    early = named("early", "canonical", after=("merge",))
    assert together(tmp_path, early).startswith("early has to run after merge, which comes later\n")
    # The phase decides, not the line: a canonical pass runs before a fused one asked for above it.
    assert together(tmp_path, turn, named("fold", "canonical")) == ""


def test_conflicts_hold_both_ways(tmp_path: Path) -> None:
    a, b = named("a", conflicts=("b",)), named("b")
    assert together(tmp_path, a) == together(tmp_path, b) == ""
    assert (
        together(tmp_path, a, b) == "a and b exclude each other\nr.toml:4\na is asked for at " + f"{tmp_path}/r.toml:2"
    )
    assert (
        together(tmp_path, b, a) == "b and a exclude each other\nr.toml:4\nb is asked for at " + f"{tmp_path}/r.toml:2"
    )
    assert together(tmp_path, named("c", conflicts=("merge",))) == (
        "merge and c exclude each other\nr.toml:2\nmerge is part of every compile, phase fused"
    )


def test_at_most_once(tmp_path: Path) -> None:
    assert together(tmp_path, named("a"), named("a")) == (
        f"a is requested twice, and it runs once\nr.toml:4\nthe first is at {tmp_path}/r.toml:2: remove one"
    )
    assert together(tmp_path, named("a", repeats=True), named("a", repeats=True)) == ""


def test_the_example(root: Path) -> None:
    recipe = load_recipe(root / "examples" / "recipe.toml")
    _, passes = compose(recipe, registry=Registry.built_in())
    assert [p.name for p in passes] == ["fold_norm_gain"] and recipe.gates == Gates(0.01, 0.99)
    result = run_pipeline(parse(llama(1), seed=0), extra=passes)
    assert next(e for e in result.ledger if e.name == "fold_norm_gain").hit > 0
