"""The step program of an artifact, read and checked."""

from __future__ import annotations

from fretsaw.backends.artifact import Container
from fretsaw.backends.program.entry import StepProgram
from fretsaw.backends.program.serialize import from_bytes
from fretsaw.backends.program.verify import Beside, verify_program
from fretsaw.ir.errors import UsageError


def has_step_program(container: Container) -> bool:
    """Whether the artifact, whose manifest is valid, has one: variants with loaders of their own may do without."""
    return _section(container) is not None


def read_step_program(container: Container) -> StepProgram:
    """The program of an artifact whose manifest is valid.

    Raises:
        UsageError: it has none.
        ArtifactError: the program is malformed, or could not be run; says where.
    """
    section = _section(container)
    if section is None:
        raise UsageError("the artifact has no step program", hint="its variants have loaders of their own")
    program = from_bytes(container.section(section))
    verify_program(program, Beside.of(container.manifest))
    return program


def _section(container: Container) -> str | None:
    named = container.manifest["program"]
    assert isinstance(named, dict)  # validated
    section = named.get("section")
    assert section is None or isinstance(section, str)
    return section
