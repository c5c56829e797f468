"""What `fretsaw new-pass` writes: a pass that works, its test and a recipe, from the templates in this folder."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path

from fretsaw.ir.errors import UsageError

TEMPLATES = {"{name}.py": "pass.txt", "test_{name}.py": "test.txt", "{name}.toml": "recipe.txt"}
LONGEST = 40  # characters of a name


def write_pass(name: str, folder: Path) -> tuple[Path, ...]:
    """Write the files of a new pass ``name`` into ``folder``, which is made where it is missing.

    Returns:
        Their paths: pass, test, recipe.

    Raises:
        UsageError: a name that no pass can have, or a file that is there already; nothing is written then.
    """
    check_name(name)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    paths = {folder / pattern.format(name=name): template for pattern, template in TEMPLATES.items()}
    for path in paths:
        if path.exists():
            raise UsageError(f"{path} exists already", hint="choose another name or folder; nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    for path, template in paths.items():
        text = files("fretsaw.tools.new_pass").joinpath(template).read_text(encoding="utf-8")
        path.write_text(text.replace("my_pass", name), encoding="utf-8")
    return tuple(paths)


def check_name(name: str) -> None:
    """Refuse a name that a pass cannot have.

    Raises:
        UsageError: no snake_case identifier, too long, or the name of a pass that exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name) or len(name) > LONGEST:
        raise UsageError(
            f'"{name}" cannot name a pass',
            hint=f"lower-case words with underscores, a verb first (fold_bias), at most {LONGEST} characters",
        )
    from fretsaw.passes.kit.registry import Registry

    taken = Registry.standard().passes.get(name)
    if taken is not None:
        raise UsageError(f"there is a pass {name} already ({taken.origin})", hint="`fretsaw passes` lists all names")
