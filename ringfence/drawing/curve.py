"""Lines of a picture as SVG paths."""

from __future__ import annotations

from ringfence.drawing.layout import Point

BEND = 4
"""Radius of the corners of arrows."""


def curve(points: tuple[Point, ...]) -> str:
    """Return the path of a line with round corners."""
    first, *middle, last = points
    parts = [f"M{first[0]:g} {first[1]:g}"]
    for before, corner, after in zip(points, middle, points[2:], strict=False):
        enter, leave = _towards(corner, before), _towards(corner, after)
        parts.append(f"L{enter[0]:g} {enter[1]:g}")
        parts.append(f"Q{corner[0]:g} {corner[1]:g} {leave[0]:g} {leave[1]:g}")
    parts.append(f"L{last[0]:g} {last[1]:g}")
    return "".join(parts)


def _towards(corner: Point, other: Point) -> Point:
    away = (other[0] - corner[0], other[1] - corner[1])
    share = min(BEND / (abs(away[0]) + abs(away[1])), 0.5)
    return corner[0] + away[0] * share, corner[1] + away[1] * share
