"""SVG and HTML elements as text that is safe to put into a page: names are ours, every value is escaped."""

from __future__ import annotations

from markupsafe import Markup, escape


def element(name: str, attrs: dict[str, str | float], *children: Markup | str) -> Markup:
    """``<name key="value">children</name>``; children that are plain text are escaped, floats have one decimal."""
    pairs = "".join(f' {key}="{escape(_text(value))}"' for key, value in attrs.items())
    inner = Markup("").join(children)
    return Markup(f"<{name}{pairs}>") + inner + Markup(f"</{name}>")


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
