"""Faults as data: one change of one file, and the tests that ought to notice it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).with_name("faults.toml")


class Untrusted(Exception):
    """The check cannot say anything; the text says why."""


@dataclass(frozen=True)
class Fault:
    """One change of one file.

    Args:
        imitates: The real mistake that it stands for.
        old: Text that is in ``file`` exactly once.
        tests: What pytest is given.
        cases: Filters for the C++ tests, by the names of their cases.
    """

    name: str
    file: str
    imitates: str
    old: str
    new: str
    tests: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()

    @property
    def native(self) -> bool:
        return self.file.endswith((".cc", ".h"))

    def planted(self, text: str) -> str:
        """``text`` of the file with the fault in it.

        Raises:
            Untrusted: the file has changed under the fault.
        """
        found = text.count(self.old)
        if found != 1:
            raise Untrusted(
                f"fault {self.name}: its old text is {found} times in {self.file}, not once; "
                f"bring {DATA.name} up to date"
            )
        return text.replace(self.old, self.new)


def load(path: Path = DATA) -> tuple[Fault, ...]:
    """The faults of a TOML file, in its order."""
    raw: list[dict[str, str | list[str]]] = tomllib.loads(path.read_text(encoding="utf-8"))["fault"]
    faults = tuple(_fault(item) for item in raw)
    if len({f.name for f in faults}) < len(faults):
        raise Untrusted(f"{path.name} has two faults of one name")
    return faults


def _fault(item: Mapping[str, str | list[str]]) -> Fault:
    lists = {key: tuple(value) for key, value in item.items() if isinstance(value, list)}
    texts = {key: value for key, value in item.items() if isinstance(value, str)}
    if unknown := item.keys() - Fault.__dataclass_fields__.keys():
        raise Untrusted(f"{DATA.name}: unknown key {', '.join(sorted(unknown))}")
    return Fault(**texts, **lists)  # type: ignore[arg-type]
