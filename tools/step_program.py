"""The step program of an artifact, read and checked."""

from __future__ import annotations

from fretsaw.backends.artifact import Container
from fretsaw.backends.program.entry import StepProgram
from fretsaw.backends.program.serialize import from_bytes
from fretsaw.backends.program.verify import Beside, verify_program


def read_step_program(container: Container) -> StepProgram:
    """The program of an artifact whose manifest is valid.

    Raises:
        ArtifactError: the program is malformed, or could not be run; says where.
    """
    named = container.manifest["program"]
    assert isinstance(named, dict)  # validated
    program = from_bytes(container.section(named["section"]))
    verify_program(program, Beside.of(container.manifest))
    return program
