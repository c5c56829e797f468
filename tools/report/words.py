"""Numbers and foreign text as words: nothing that a file says may move a cursor, break a line or overflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fretsaw.tools.reporter import human_bytes

LARGEST = 10**24


def plain(text: str) -> str:
    r"""Text with everything that is not printable as an escape: ESC becomes ``\x1b``, a line break ``\n``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def lines(text: str) -> str:
    """As :func:`plain`, with line breaks kept."""
    return "\n".join(map(plain, text.split("\n")))


def clip(text: str, most: int) -> str:
    """At most ``most`` characters, the middle left out: paths differ at both ends."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def number(value: int) -> str:
    """12,345; beyond 10^24 only that."""
    return f"{value:,}" if abs(value) < LARGEST else "over 10^24"


def size(value: int) -> str:
    """1.23 MB; beyond 10^24 only that."""
    return human_bytes(value) if value < LARGEST else "over 10^24 B"


def count(value: int, unit: str = "") -> str:
    """1.23 M, with three digits and a decimal prefix: 1234567 -> 1.23 M."""
    if value >= LARGEST:
        return f"over 10^24 {unit}".rstrip()
    number, prefix = float(value), ""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if abs(number) < 999.5 or prefix == "E":
            break
        number /= 1000
    if not prefix:
        return f"{value} {unit}".rstrip()
    digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{digits}f} {prefix}{unit}"


def change(before: int, after: int) -> str:
    """Empty for no change, else the difference in percent with its sign."""
    if before == after:
        return ""
    if not before or max(before, after) >= LARGEST:
        return "changed"
    percent = 100 * (after - before) / before
    if abs(percent) < 5e-5:
        return "below 0.0001 %"
    return f"{percent:+.1f} %" if abs(percent) >= 0.05 else f"{percent:+.4f} %"


def arrow(before: int, after: int, word: Callable[[int], str]) -> str:
    """``12 → 10 (-16.7 %)``, or one number where nothing changed."""
    if before == after:
        return word(before)
    return f"{word(before)} → {word(after)} ({change(before, after)})"


def scalar(value: object) -> str:
    """An option or a number of a check."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.3g}"
    return number(value) if isinstance(value, int) else plain(str(value))


def settings(values: Mapping[str, object]) -> str:
    """``strength = 2, mode = fast``."""
    return ", ".join(f"{plain(k)} = {scalar(v)}" for k, v in values.items())


# Of a check, in the order in which a reader wants them; the rest is shown with ``--pass``.
BRIEF = (
    "mode", "max_error", "max_error_f64", "bound_f64", "relative_error", "kl", "max_kl", "top1", "min_top1",
)  # fmt: skip


def check_numbers(check: Mapping[str, object], *, brief: bool = False) -> str:
    """What a check measured, without its status. A graph that stayed as it was has nothing to measure.

    Args:
        brief: Only the numbers that decide.
    """
    if check.get("changed") == 0:
        return "nothing changed"
    keys = [k for k in check if k not in ("status", "changed")]
    if brief:
        known = [k for k in BRIEF if k in check]
        keys = known if known else keys[:4]
    return ", ".join(f"{plain(k)} {scalar(check[k])}" for k in keys)
