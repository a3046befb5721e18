"""That everything on a picture can be read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

from ringfence.drawing.layout import Box, Drawing, Text

HEIGHT = {"title": 13, "mono": 11, "small": 12}
"""Height of texts, in the sizes of the page."""


def assert_readable(drawing: Drawing) -> None:
    for one, other in combinations(drawing.boxes, 2):
        assert not overlap(one, other), (one.key, other.key)
    frames = [frame for frame in drawing.frames if frame.key != "vpc"]
    for one, other in combinations(frames, 2):
        assert not overlap(one, other), (one.key, other.key)
    for box in drawing.boxes:
        for frame in frames:
            inside = contains(frame, box)
            assert inside or not overlap(frame, box), (frame.key, box.key)
        assert box.x >= 0
        assert box.right <= drawing.width
        assert box.bottom <= drawing.height
    places = [room(text) for text in drawing.texts]
    for one, other in combinations(places, 2):
        assert not overlap(one, other), (one.key, other.key)
    for place in places:
        holders = [box for box in (*drawing.boxes, *drawing.frames) if contains(box, place)]
        assert holders, place.key
    assert_lines_are_free(drawing, places)


def assert_lines_are_free(drawing: Drawing, texts: list[Box]) -> None:
    stretches: dict[tuple[str, float], set[tuple[float, float, tuple[str, ...]]]] = {}
    for line in drawing.lines:
        ends = {*line.arrow.sources, line.arrow.target}
        for stretch in pieces(line.points):
            assert stretch.width == 0 or stretch.height == 0, line.arrow.says
            for text in texts:
                assert not overlap(stretch, text), (line.arrow.says, text.key)
            for box in drawing.boxes:
                assert box.key in ends or not overlap(stretch, box), (line.arrow.says, box.key)
            along = stretch.width > 0
            key = ("y", stretch.y) if along else ("x", stretch.x)
            span = (stretch.x, stretch.right) if along else (stretch.y, stretch.bottom)
            stretches.setdefault(key, set()).add((*span, line.arrow.sources))
        touches(drawing, line.points[-1], line.arrow.target)
    for key, found in stretches.items():
        for (start, end, one), (begin, stop, other) in combinations(found, 2):
            assert one == other or end <= begin or stop <= start, (key, one, other)


def touches(drawing: Drawing, point: tuple[float, float], key: str) -> None:
    (box,) = [box for box in (*drawing.boxes, *drawing.frames) if box.key == key]
    assert point[0] == box.x
    assert box.y < point[1] < box.bottom


def pieces(points: tuple[tuple[float, float], ...]) -> Iterator[Box]:
    for (x, y), (to_x, to_y) in pairwise(points):
        yield Box("", "", min(x, to_x), min(y, to_y), abs(to_x - x), abs(to_y - y))


def room(text: Text) -> Box:
    height = HEIGHT[text.style]
    return Box(text.text, text.style, text.x, text.y - 0.8 * height, text.width, height)


def near(text: Text, y: float) -> bool:
    return abs(text.y - y) <= 4


def overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.right
        and other.x < one.right
        and one.y < other.bottom
        and other.y < one.bottom
    )


def contains(box: Box, other: Box) -> bool:
    return (
        box.x <= other.x
        and other.right <= box.right
        and box.y <= other.y
        and other.bottom <= box.bottom
    )
