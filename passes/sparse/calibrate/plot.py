"""A scatter plot with lines and a logarithmic axis, as a small SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 460, 78, 170, 34, 52
COLORS = ("#1f5fa8", "#c2500a", "#2f7d32", "#7b3fa0", "#a8791f", "#8a1538", "#35808a", "#555555", "#b0508a", "#405010")


@dataclass(frozen=True)
class Series:
    """Points (x, y, label) of one name; y is positive."""

    name: str
    points: tuple[tuple[float, float, str], ...]
    line: bool = True


def scatter(series: Sequence[Series], title: str, xlabel: str, ylabel: str) -> str:
    """SVG text: x from 0, y logarithmic."""
    xs = [x for s in series for x, _, _ in s.points]
    ys = [y for s in series for _, y, _ in s.points]
    if not xs:
        raise ValueError("a plot needs points")
    xmax = max(xs) * 1.08
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)) + 1e-9)
    high = max(high, low + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        share = (math.log10(y) - low) / (high - low)
        return LEFT + x / xmax * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" '
        'font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
    ]
    for power in range(low, high + 1):
        _, y = at(0, 10.0**power)
        out.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    step = 10 ** math.floor(math.log10(xmax / 2))
    step = step if xmax / step <= 8 else step * 2 if xmax / step <= 16 else step * 5
    for i in range(int(xmax / step) + 1):
        x, y = at(i * step, 10.0**low)
        out.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{i * step:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text x="{middle:.0f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(xlabel)}</text>')
    centre = (TOP + HEIGHT - BOTTOM) / 2
    out.append(
        f'<text x="18" y="{centre:.0f}" text-anchor="middle" transform="rotate(-90 18 {centre:.0f})">'
        f"{escape(ylabel)}</text>"
    )
    for n, s in enumerate(series):
        color = COLORS[n % len(COLORS)]
        places = [(*at(x, y), label) for x, y, label in sorted(s.points)]
        if s.line and len(places) > 1:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in places)
            out.append(f'<path d="M{path}" stroke="{color}" fill="none" stroke-width="1.5"/>')
        for x, y, label in places:
            out.append(_mark(n, x, y))
            if label:
                out.append(
                    f'<text x="{x + 6:.1f}" y="{y - 5:.1f}" font-size="10" fill="{color}">{escape(label)}</text>'
                )
        top = TOP + 18 * n + 6
        out.append(_mark(n, WIDTH - RIGHT + 20, top))
        out.append(f'<text x="{WIDTH - RIGHT + 30}" y="{top + 4}">{escape(s.name)}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def _mark(n: int, x: float, y: float) -> str:
    """A point of series ``n``: a disc in one of the colours, then a square, then a triangle."""
    color, shape = COLORS[n % len(COLORS)], n // len(COLORS) % 3
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>'
    outline = "m-4 -4h8v8h-8z" if shape == 1 else "m0 -5l5 9h-10z"
    return f'<path d="M{x:.1f} {y:.1f}{outline}" fill="{color}"/>'
