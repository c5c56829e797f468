"""A cursor over one line of IR text: names, types, attribute values. Errors carry the line and a caret."""

from __future__ import annotations

import math
import re

from fretsaw.ir.dims import Dim, DimLike, parse_dim
from fretsaw.ir.errors import ParseError
from fretsaw.ir.op import Attr
from fretsaw.ir.types import DTYPES, HandleType, TensorType, ValueType

NAME = re.compile(r"[^\s,:()={}\[\]<>\"%]+")
WORD = re.compile(r"[A-Za-z_]\w*")
NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|inf|nan)(?![\w.])")
INTEGER = re.compile(r"-?\d+")
DIM = re.compile(r"-?[\w*+ -]*[\w]")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
ESCAPE = re.compile(r"\\(?:u\{([0-9a-fA-F]{1,6})\}|(.))")
CONSTANTS: dict[str, Attr] = {"true": True, "false": False, "none": None}
NUMBERS = frozenset((*CONSTANTS, "inf", "nan"))  # words that a symbol cannot be called
MAX_INT = 2**63 - 1  # integers and coefficients of dimensions fit 64 bits
MAX_DIM_TEXT = 1000  # characters of one dimension
MAX_NESTING = 100  # lists in lists, ops in the data of constants


def is_name(text: str) -> bool:
    """Whether the text form can hold ``text`` as a name."""
    return text.isprintable() and NAME.fullmatch(text) is not None


def fits(dim: DimLike) -> bool:
    """Whether a dimension and its coefficients fit 64 bits."""
    numbers = [c for _, c in dim.terms] if isinstance(dim, Dim) else [dim]
    return all(-MAX_INT - 1 <= n <= MAX_INT for n in numbers)


def _unescape(found: re.Match[str]) -> str:
    if found[1]:
        return chr(int(found[1], 16))
    return "\n" if found[2] == "n" else found[2]


class Cursor:
    """Reads one line from left to right; blanks between tokens are skipped."""

    def __init__(self, text: str, number: int) -> None:
        self.text, self.number, self.at = text, number, 0

    def error(self, what: str, hint: str = "") -> ParseError:
        """An error at the current place: the line, and a caret under the column."""
        caret = " " * self.at + "^"
        return ParseError(
            what, where=f"line {self.number}, column {self.at + 1}", context=f"{self.text}\n{caret}", hint=hint
        )

    def _blank(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1

    def done(self) -> bool:
        self._blank()
        return self.at == len(self.text)

    def accept(self, token: str) -> bool:
        """Consume ``token`` if it is next."""
        self._blank()
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.error(f"expected {token!r}")

    def match(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        """Consume ``pattern`` or fail saying that ``what`` was expected."""
        self._blank()
        found = pattern.match(self.text, self.at)
        if not found:
            raise self.error(f"expected {what}")
        self.at = found.end()
        return found

    def rest(self) -> str:
        text, self.at = self.text[self.at :], len(self.text)
        return text.strip()

    def name(self, what: str = "a name") -> str:
        start = self.at
        name = self.match(NAME, what).group()
        if not name.isprintable():
            self.at = start
            raise self.error(f"expected {what}, found a character that cannot be printed")
        return name

    def integer(self) -> int:
        start = self.at
        text = self.match(INTEGER, "an integer").group()
        number = int(text) if len(text) <= 20 else MAX_INT + 1
        if not -MAX_INT - 1 <= number <= MAX_INT:
            self.at = start
            raise self.error("an integer must fit 64 bits")
        return number

    def string(self) -> str:
        start = self.at
        raw = self.match(STRING, "a quoted string").group(1)
        try:
            return ESCAPE.sub(_unescape, raw)
        except ValueError:
            self.at = start
            raise self.error("an escape names no character") from None

    def dim(self) -> DimLike:
        """A polynomial over symbols, up to the next comma or bracket."""
        start = self.at
        text = self.match(DIM, "a dimension").group()
        if len(text) > MAX_DIM_TEXT:
            self.at = start
            raise self.error(f"a dimension of {len(text)} characters; at most {MAX_DIM_TEXT} are read")
        try:
            found = parse_dim(text)
        except ValueError:
            self.at = start
            raise self.error(f"not a dimension: {text!r}") from None
        if not fits(found):
            self.at = start
            raise self.error("a dimension and its coefficients must fit 64 bits")
        return found

    def type(self) -> ValueType:
        """``f32[B, 8]``, ``handle<kv_cache>`` or ``handle<kv_cache, int8>``."""
        self._blank()
        start = self.at
        word = self.match(WORD, "a type").group()
        if word == "handle":
            self.expect("<")
            kind = self.name("a handle kind")
            kept = self.name("a storage format") if self.accept(",") else "f32"
            self.expect(">")
            return HandleType(kind, kept)
        if word not in DTYPES:
            self.at = start
            raise self.error(f"there is no dtype {word}", hint=f"one of {', '.join(DTYPES)}, or handle<kind>")
        self.expect("[")
        dims: list[DimLike] = []
        while not self.accept("]"):
            if dims:
                self.expect(",")
            dims.append(self.dim())
        return TensorType(word, tuple(dims))

    def tensor_type(self) -> TensorType:
        start = self.at
        found = self.type()
        if not isinstance(found, TensorType):
            self.at = start
            raise self.error("expected a tensor type")
        return found

    def value(self, depth: int = 0) -> Attr:
        """An attribute value: string, list, true, false, none, float, integer or dimension."""
        self._blank()
        if self.text.startswith('"', self.at):
            return self.string()
        if self.accept("["):
            if depth >= MAX_NESTING:
                raise self.error(f"lists are nested over {MAX_NESTING} deep")
            items: list[Attr] = []
            while not self.accept("]"):
                if items:
                    self.expect(",")
                items.append(self.value(depth + 1))
            return tuple(items)
        start = self.at
        number = NUMBER.match(self.text, self.at)
        if number and re.search(r"[.einf]", number.group()):
            self.at = number.end()
            found = float(number.group())
            return found if found == found else math.nan  # one NaN, so that equal texts are equal values
        word = WORD.match(self.text, self.at)
        if word and word.group() in CONSTANTS:
            self.at = word.end()
            return CONSTANTS[word.group()]
        self.at = start
        return self.dim()

    def attrs(self) -> dict[str, Attr]:
        """``{a = 1, b = "x"}``, or nothing."""
        out: dict[str, Attr] = {}
        if not self.accept("{"):
            return out
        while not self.accept("}"):
            if out:
                self.expect(",")
            key = self.name("an attribute name")
            if key in out:
                raise self.error(f"attribute {key} is given twice")
            self.expect("=")
            out[key] = self.value()
        return out
