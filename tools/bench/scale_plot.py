"""The plot of ``scale``: seconds over layers, points and fitted lines, as a small SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 360, 60, 130, 30, 50
COLORS = ("#1f5fa8", "#c2500a")
LABELS = {"llama": "Llama-3.1-8B", "moe": "Qwen3-235B-A22B"}
Rows = Sequence[Mapping[str, float]]


def fit(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Least squares line: slope, intercept, R squared (1 where there are fewer than three points)."""
    if len(x) < 2:
        return 0.0, float(y[0]), 1.0
    slope, base = np.polyfit(x, y, 1)
    rest = np.asarray(y) - (slope * np.asarray(x) + base)
    total = float(((np.asarray(y) - np.mean(y)) ** 2).sum())
    return float(slope), float(base), 1 - float((rest**2).sum()) / total if total else 1.0


def plot(found: Mapping[str, Rows]) -> str:
    """SVG text of canonicalization time over layers."""
    xmax = max(r["layers"] for rows in found.values() for r in rows) * 1.05
    ymax = max(r["canonical_cpu_s"] for rows in found.values() for r in rows) * 1.15

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + x / xmax * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - y / ymax * (HEIGHT - TOP - BOTTOM),
        )

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-size="12" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">Processor time to canonicalize, seconds</text>',
    ]
    for tick in ticks(ymax):
        x, y = at(0, tick)
        out.append(f'<path d="M{x:.1f} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        out.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(xmax):
        x, y = at(tick, 0)
        out.append(f'<text x="{x:.1f}" y="{y + 18:.1f}" text-anchor="middle">{tick:g}</text>')
    x, y = at(xmax / 2, 0)
    out.append(f'<text x="{x:.1f}" y="{y + 38:.1f}" text-anchor="middle">layers</text>')
    for color, (name, rows) in zip(COLORS, found.items(), strict=False):
        slope, base, r2 = fit([r["layers"] for r in rows], [r["canonical_cpu_s"] for r in rows])
        first, last = (f(r["layers"] for r in rows) for f in (min, max))
        (x0, y0), (x1, y1) = at(first, base + slope * first), at(last, base + slope * last)
        out.append(f'<path d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}" stroke="{color}" fill="none"/>')
        for row in rows:
            x, y = at(row["layers"], row["canonical_cpu_s"])
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>')
        out.append(f'<text x="{x1 + 8:.1f}" y="{y1:.1f}" fill="{color}">{LABELS[name]}</text>')
        out.append(
            f'<text x="{x1 + 8:.1f}" y="{y1 + 14:.1f}" fill="{color}">{slope * 1000:.0f} ms/layer, R² {r2:.3f}</text>'
        )
    return "\n".join([*out, "</svg>"]) + "\n"


def ticks(top: float) -> list[float]:
    """About five round numbers from 0 to ``top``."""
    raw = top / 5
    unit = 10.0 ** np.floor(np.log10(raw))
    step = next(float(unit * m) for m in (1, 2, 5, 10) if unit * m >= raw)
    return [float(i * step) for i in range(int(top / step) + 1)]
