"""The five kinds of error, one format: what, where, when, context, what to do.

A user error says what to change; our bug says what to send. Nothing else is raised across folders.
"""

from __future__ import annotations


class FretsawError(Exception):
    """Base of every error Fretsaw raises on purpose.

    Args:
        what: One line: expected and got, with units.
        where: Node, module path, source line, file and offset: whatever names the place.
        when: Phase or pass that was running.
        context: Lines of text, printed as they are. Where one starts with ``> ``, all have a gutter of two columns,
            which moves before the bar (see ``ir/excerpt.py``).
        hint: What the reader can do about it.
    """

    kind = "Error"
    exit_code = 1

    def __init__(self, what: str, *, where: str = "", when: str = "", context: str = "", hint: str = "") -> None:
        self.what, self.where, self.when, self.context, self.hint = what, where, when, context, hint
        super().__init__(self.render())

    def render(self) -> str:
        """The whole message, several lines, no trailing newline."""
        lines = [f"{self.kind}: {self.what}"]
        if self.where:
            lines.append(f"  at    {self.where}")
        if self.when:
            lines.append(f"  when  {self.when}")
        lines += _barred(self.context.splitlines())
        if self.hint:
            lines.append(f"  hint  {self.hint}")
        return "\n".join(lines)


def _barred(lines: list[str]) -> list[str]:
    if not any(line.startswith("> ") for line in lines):
        return [f"    | {line}".rstrip() for line in lines]
    return [f"  {'>' if line.startswith('> ') else ' '} | {line[2:]}".rstrip() for line in lines]


class UsageError(FretsawError):
    """The command line or a recipe asks for something impossible."""

    kind, exit_code = "UsageError", 2


class CaptureError(FretsawError):
    """The checkpoint cannot be read, or uses something the frontend does not know."""

    kind, exit_code = "CaptureError", 3


class VerifyError(FretsawError):
    """A graph breaks a numbered invariant of ``ir/verify.py`` or a phase's spec."""

    kind, exit_code = "VerifyError", 4


class ParseError(VerifyError):
    """IR text is not in the form that ``ir/parser.py`` describes."""

    kind = "ParseError"


class PassError(FretsawError):
    """A pass missed sites, broke its promise or ran out of its budget."""

    kind, exit_code = "PassError", 5


class LoweringError(FretsawError):
    """A backend has no lowering for an op of the graph."""

    kind, exit_code = "LoweringError", 6


class ArtifactError(FretsawError):
    """An artifact cannot be written, or what was read is not one."""

    kind, exit_code = "ArtifactError", 7
