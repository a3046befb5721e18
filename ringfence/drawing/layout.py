"""Layout of a picture: rows and columns of boxes, and channels between them (decision drawing).

Callers, gateways, servers and data are side by side, in the direction of a call; management is
above, monitoring below, egress on the right. Arrows run in channels: one left of every column, one
between rows, with a track for each set of sources. So no two arrows overlap, and no arrow crosses
a text or a box that it does not lead to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil, sqrt

from ringfence.cloud.flows import CALLERS
from ringfence.drawing.picture import EGRESS, ROUTER, Arrow, Block, DiagramNode, Picture

GRID = 8
"""Boxes and heads of arrows are on the grid; tails and half of the tracks between."""
HALF = GRID // 2
LINE = 2 * GRID
WIDTH = 25 * GRID
"""Width of a box with text."""
PAD, GAP, MARGIN = 2 * GRID, 2 * GRID, GRID
TITLE = 3 * GRID
COLUMNS = ("clients", "edge", "servers", "data", EGRESS)
ABOVE, BESIDE, BELOW = 0, 1, 2
ROWS = {"management": ABOVE, ROUTER: ABOVE, "monitoring": BELOW}
PER_ROW = 4
"""Boxes side by side in management and monitoring."""
TALL = 6
"""Boxes in one column before it is split; later columns are taller than wide."""

CHARACTER = {"title": 7.7, "mono": 6.7, "small": 6.6}
"""Upper bounds of a character's width, in the sizes of the page."""


@dataclass(frozen=True)
class Box:
    key: str
    kind: str
    x: float
    y: float
    width: float
    height: float
    recorded: bool = False
    full: str = ""
    """Content as text, for screen readers."""

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass(frozen=True)
class Text:
    x: float
    y: float
    text: str
    style: str
    at_end: bool = False

    @property
    def width(self) -> float:
        return len(self.text) * CHARACTER[self.style]


Point = tuple[float, float]
_Key = tuple[tuple[str, ...], str]


@dataclass(frozen=True)
class ArrowLine:
    arrow: Arrow
    points: tuple[Point, ...]
    kind: str
    """Kind of the arrow, or purpose of the segment that it comes from."""


@dataclass(frozen=True)
class Drawing:
    width: float
    height: float
    frames: tuple[Box, ...]
    boxes: tuple[Box, ...]
    texts: tuple[Text, ...]
    lines: tuple[ArrowLine, ...]


def of(picture: Picture, arrows: Sequence[Arrow]) -> Drawing:
    return _Layout(picture, arrows).drawing()


@dataclass(frozen=True)
class _Slot:
    """A channel of a row: the one left of the column with this number."""

    row: int
    channel: int


@dataclass(frozen=True)
class _Place:
    """Place of a box, or of the frame of a block, in rows and columns."""

    row: int
    first: int
    last: int

    @property
    def entry(self) -> _Slot:
        return _Slot(self.row, self.first)

    @property
    def exit(self) -> _Slot:
        return _Slot(self.row, self.last + 1)


@dataclass
class _Column:
    opens: bool = False
    closes: bool = False
    outside: bool = False
    x: float = 0


@dataclass
class _Net:
    """All arrows of the same sources and kind: one line that forks."""

    sources: tuple[str, ...]
    kind: str = ""
    arrows: list[Arrow] = field(default_factory=list)
    slots: list[_Slot] = field(default_factory=list)
    crossing: _Slot | None = None
    """Channel in which the line passes the columns."""

    @property
    def key(self) -> _Key:
        return self.sources, self.kind

    @property
    def rows(self) -> set[int]:
        return {slot.row for slot in self.slots}


class _Layout:
    def __init__(self, picture: Picture, arrows: Sequence[Arrow]) -> None:
        self._picture = picture
        self._rows: dict[int, list[_Column]] = {ABOVE: [], BESIDE: [], BELOW: []}
        self._places: dict[str, _Place] = {}
        self._grids: dict[str, tuple[tuple[DiagramNode, ...], ...]] = {}
        self._stacks: list[tuple[Block, ...]] = []
        self._edges: set[str] = set()
        """Ends that arrows leave through the border to the next row."""
        self._kinds: dict[str, str] = {}
        self._outside = self._unknown(arrows)
        self._arrange()
        self._pins: dict[str, list[Arrow]] = defaultdict(list)
        self._tails: dict[str, list[_Key]] = defaultdict(list)
        self._tracks: dict[_Slot, list[_Net]] = defaultdict(list)
        self._levels: dict[int, list[_Net]] = {0: [], 1: []}
        self._nets = self._wire(arrows)
        self._x: dict[tuple[_Slot, _Key], float] = {}
        self._boxes: dict[str, Box] = {}
        self._frames: dict[str, Box] = {}
        self._texts: list[Text] = []

    # Columns of boxes.

    def _unknown(self, arrows: Iterable[Arrow]) -> tuple[DiagramNode, ...]:
        """Return the nodes outside, with one for each end that is no block and no node."""
        known = {block.key for block in self._picture.blocks}
        known |= {node.key for block in self._picture.blocks for node in block.nodes}
        known |= {node.key for node in self._picture.outside}
        ends = [end for arrow in arrows for end in (*arrow.sources, arrow.target)]
        missing = [end for end in dict.fromkeys(ends) if end not in known]
        return (*self._picture.outside, *(DiagramNode(end, "outside", end) for end in missing))

    def _arrange(self) -> None:
        blocks = self._picture.blocks
        for row in (ABOVE, BELOW):
            for block in blocks:
                if ROWS.get(block.purpose) == row:
                    self._lay_flat(block, row)
        self._beside(tuple(n for n in self._outside if n.key == CALLERS))
        for purpose in COLUMNS:
            if stack := tuple(block for block in blocks if block.purpose == purpose):
                self._stack(stack)
        self._beside(tuple(n for n in self._outside if n.key != CALLERS))

    def _lay_flat(self, block: Block, row: int) -> None:
        columns = self._rows[row]
        first, count = len(columns), min(len(block.nodes), PER_ROW)
        columns += [_Column() for _ in range(1 + count)]
        columns[first].opens = columns[-1].closes = True
        self._grid(block, row, first + 1, count)
        self._places[block.key] = _Place(row, first, first)
        self._edges.add(block.key)

    def _stack(self, blocks: tuple[Block, ...]) -> None:
        columns = self._rows[BESIDE]
        most = max(len(block.nodes) for block in blocks)
        first, count = len(columns), min(4, max(1, ceil(sqrt(most / TALL))))
        columns += [_Column() for _ in range(count)]
        columns[first].opens = columns[-1].closes = True
        for block in blocks:
            self._grid(block, BESIDE, first, count)
            self._places[block.key] = _Place(BESIDE, first, len(columns) - 1)
        self._stacks.append(blocks)

    def _grid(self, block: Block, row: int, first: int, count: int) -> None:
        nodes = block.nodes
        rows = tuple(nodes[i : i + count] for i in range(0, len(nodes), count or 1))
        self._grids[block.key] = rows
        self._kinds[block.key] = block.purpose
        for line in rows:
            for column, node in enumerate(line, first):
                self._places[node.key] = _Place(row, column, column)
                self._kinds[node.key] = block.purpose

    def _beside(self, nodes: tuple[DiagramNode, ...]) -> None:
        if nodes:
            column = len(self._rows[BESIDE])
            self._rows[BESIDE].append(_Column(outside=True))
            for node in nodes:
                self._places[node.key] = _Place(BESIDE, column, column)
                self._kinds[node.key] = "outside"

    # Channels of arrows.

    def _wire(self, arrows: Iterable[Arrow]) -> tuple[_Net, ...]:
        nets: dict[_Key, _Net] = {}
        for arrow in arrows:
            net = _Net(arrow.sources, arrow.kind)
            nets.setdefault(net.key, net).arrows.append(arrow)
            self._pins[arrow.target].append(arrow)
        for net in nets.values():
            for end in net.sources:
                self._tails[end].append(net.key)
            slots = [self._places[each].exit for each in net.sources if each not in self._edges]
            slots += [self._places[arrow.target].entry for arrow in net.arrows]
            net.slots = list(dict.fromkeys(slots))
            rows = net.rows | {self._places[each].row for each in net.sources}
            if {ABOVE, BELOW} <= rows:
                beside = sorted(s.channel for s in net.slots if s.row == BESIDE)
                net.crossing = _Slot(BESIDE, beside[0] if beside else self._inside[BESIDE])
            for slot in {*net.slots, *([net.crossing] if net.crossing else [])}:
                self._tracks[slot].append(net)
            for level in self._levels_of(net, rows):
                self._levels[level].append(net)
        return tuple(nets.values())

    @cached_property
    def _inside(self) -> dict[int, int]:
        """Return the first channel inside the network, by row."""
        beside = self._rows[BESIDE]
        return {ABOVE: 0, BESIDE: int(bool(beside) and beside[0].outside), BELOW: 0}

    def _levels_of(self, net: _Net, rows: set[int]) -> set[int]:
        if net.crossing:
            return {0, 1}
        if len(net.slots) == 1 and not set(net.sources) & self._edges:
            return set()
        return {1} if BELOW in rows else {0}

    def _level(self, net: _Net, slot: _Slot) -> int:
        if slot.row == BESIDE:
            return 1 if net in self._levels[1] and not net.crossing else 0
        return 0 if slot.row == ABOVE else 1

    # Measures.

    def drawing(self) -> Drawing:
        beside, widths = self._rows[BESIDE], {}
        outside_left = beside[0].outside if beside else False
        left = MARGIN
        if outside_left:
            left += self._channel(_Slot(BESIDE, 0)) + WIDTH + GAP
        for row in self._rows:
            start = MARGIN if row == BESIDE else left
            widths[row] = self._measure(row, start)
        right = max(widths.values()) + MARGIN
        end = right
        if beside and beside[-1].outside:
            beside[-1].x = right + 3 * GRID
            last = _Slot(BESIDE, len(beside))
            end = self._channelled(last, beside[-1].x + WIDTH)
        top = MARGIN
        y = top + 5 * GRID
        title = fitted(self._picture.title, "title", WIDTH)
        self._text(left + PAD, top + 3 * GRID, title, "title", WIDTH)
        notes = " · ".join(self._picture.notes)
        beyond = max(20 * GRID, len(title) * CHARACTER["title"] + LINE)
        room = right - left - beyond - LINE
        self._text(left + PAD + beyond, top + 3 * GRID, notes, "small", room)
        y = self._flat(ABOVE, y, right - 3 * GRID)
        levels = {0: y + GRID}
        y = self._columns(y + self._level_height(0))
        levels[1] = y + GRID
        y = self._flat(BELOW, y + self._level_height(1), right - 3 * GRID) + PAD
        vpc = Box("vpc", "vpc", left, top, right - left, y - top)
        height = self._cards(y + 3 * GRID, MARGIN, end - MARGIN) + MARGIN
        return Drawing(
            end + MARGIN,
            height,
            (vpc, *self._frames.values()),
            tuple(self._boxes.values()),
            tuple(self._texts),
            tuple(self._lines(levels)),
        )

    def _channel(self, slot: _Slot) -> float:
        """Return the width, the same along the left border of the network, so that frames align."""
        same = {slot}
        if slot.channel == self._inside[slot.row]:
            same = {_Slot(row, channel) for row, channel in self._inside.items()}
        return GRID * max(len(self._tracks[each]) for each in same) + 2 * GRID

    def _level_height(self, level: int) -> float:
        return GRID * len(self._levels[level]) + GRID

    def _measure(self, row: int, x: float) -> float:
        """Place columns and tracks; return the end of the last channel inside the network."""
        columns, inside = self._rows[row], x
        for number in range(len(columns) + 1):
            slot = _Slot(row, number)
            column = columns[number] if number < len(columns) else None
            if number and columns[number - 1].outside and column:
                x += GAP
            inside = x = self._channelled(slot, x)
            if column:
                if column.outside and number:
                    return inside
                x += PAD if column.opens else 0
                column.x = x
                x += WIDTH + (PAD if column.closes else 0)
        return inside

    def _channelled(self, slot: _Slot, x: float) -> float:
        """Place the tracks of a channel; return its end."""
        shift = HALF if slot.row == BESIDE else 0
        for number, net in enumerate(self._tracks[slot]):
            self._x[slot, net.key] = x + GRID + GRID * number + shift
        return x + self._channel(slot)

    def _flat(self, row: int, top: float, right: float) -> float:
        """Place the blocks of management or monitoring side by side."""
        blocks = [b for b in self._picture.blocks if ROWS.get(b.purpose) == row]
        if not blocks:
            return top
        head = max(self._head(block) for block in blocks)
        body = max(sum(self._heights(b)) + GAP * len(self._grids[b.key]) for b in blocks)
        height = max(head, body + PAD)
        for block in blocks:
            first = self._places[block.key].first
            x = self._rows[row][first].x - PAD
            count = max((len(line) for line in self._grids[block.key]), default=0)
            end = self._rows[row][first + count].x + WIDTH + PAD
            end = right if block is blocks[-1] else end
            self._frame(block, x, top, end - x, height)
            y = top + PAD
            for line, tall in zip(self._grids[block.key], self._heights(block), strict=True):
                self._line_of(line, y, tall)
                y += tall + GAP
        return top + height

    def _columns(self, top: float) -> float:
        heights = [self._stack_height(stack) for stack in self._stacks]
        outside = [n for n in self._outside if n.key != CALLERS]
        callers = [n for n in self._outside if n.key == CALLERS]
        for nodes in (outside, callers):
            heights.append(sum(self._height(n) + GAP for n in nodes))
        bottom = top + max(heights, default=0)
        for stack in self._stacks:
            y = top
            for block in stack:
                tall = self._block_height(block) if block is not stack[-1] else bottom - y
                place = self._places[block.key]
                x = self._rows[BESIDE][place.first].x - PAD
                end = self._rows[BESIDE][place.last].x + WIDTH + PAD
                self._frame(block, x, y, end - x, tall)
                inner = y + self._head(block)
                for line, high in zip(self._grids[block.key], self._heights(block), strict=True):
                    self._line_of(line, inner, high)
                    inner += high + GAP
                y += tall + GAP
        for nodes in (outside, callers):
            y = top
            for node in nodes:
                self._line_of((node,), y, self._height(node))
                y += self._height(node) + GAP
        return bottom

    def _stack_height(self, stack: Sequence[Block]) -> float:
        return sum(map(self._block_height, stack)) + GAP * (len(stack) - 1)

    def _block_height(self, block: Block) -> float:
        rows = self._heights(block)
        return self._head(block) + sum(rows) + GAP * len(rows)

    def _head(self, block: Block) -> float:
        lines = 1 + len(block.subnets) + len(self._pins[block.key])
        return TITLE + LINE * lines + GRID

    def _heights(self, block: Block) -> list[float]:
        return [max(map(self._height, line)) for line in self._grids[block.key]]

    def _height(self, node: DiagramNode) -> float:
        lines = len(node.lines) + len(self._pins[node.key])
        tails = len(self._tails[node.key])
        return max(TITLE + GRID + LINE * lines, LINE + GRID * tails)

    # Boxes and their texts.

    def _frame(self, block: Block, x: float, y: float, width: float, height: float) -> None:
        zones = ", ".join(f"{cidr} in {zone}" if zone else cidr for zone, cidr in block.subnets)
        full = f"{block.title} {block.cidr}: {zones}"
        kind = f"frame {block.purpose}"
        self._frames[block.key] = Box(block.key, kind, x, y, width, height, block.recorded, full)
        inner = x + GRID + HALF
        self._text(inner, y + 2.5 * GRID, block.title, "title", WIDTH + GRID)
        lines = [block.cidr, *(f"{zone} {cidr}".strip() for zone, cidr in block.subnets)]
        zoned = any(zone for zone, _ in block.subnets)
        for number, text in enumerate(lines):
            style = "mono" if number and zoned else "small"
            self._text(inner, y + TITLE + LINE * (number + 0.75), text, style, WIDTH + GRID)
        self._pinned(block.key, inner, y + TITLE + LINE * len(lines))

    def _line_of(self, nodes: Iterable[DiagramNode], y: float, height: float) -> None:
        for node in nodes:
            place = self._places[node.key]
            x = self._rows[place.row][place.first].x
            full = ": ".join((node.title, "; ".join(node.lines))) if node.lines else node.title
            full += " (only recorded, not verified)" if node.recorded else ""
            self._boxes[node.key] = Box(
                node.key, f"node {node.kind}", x, y, WIDTH, height, node.recorded, full
            )
            mark = " ?" if node.recorded else ""
            title = fitted(node.title, "title", WIDTH - 2 * GRID - (2 * GRID if mark else 0))
            self._text(x + GRID, y + 2.25 * GRID, title + mark, "title")
            for number, text in enumerate(node.lines):
                self._text(x + GRID, y + TITLE + LINE * (number + 0.75), text, "small")
            self._pinned(node.key, x + GRID, y + TITLE + LINE * len(node.lines))

    def _pinned(self, key: str, x: float, y: float) -> None:
        for number, arrow in enumerate(self._pins[key]):
            at = y + LINE * number + GRID + HALF
            port = Text(x, at, arrow.ports, "mono")
            self._texts.append(port)
            rest = WIDTH - 2 * GRID - port.width - GRID
            into = "" if arrow.every or not key.startswith("segment ") else "any address, "
            self._text(x + port.width + HALF, at, f"{into}from {arrow.origin}", "small", rest)

    def _text(
        self, x: float, y: float, text: str, style: str, width: float = WIDTH - 2 * GRID
    ) -> None:
        if text:
            self._texts.append(Text(x, y, fitted(text, style, width), style))

    def _cards(self, top: float, left: float, right: float) -> float:
        cards = self._picture.cards
        if not cards:
            return top
        count = max(1, min(len(cards), int((right - left + GAP) // (WIDTH + 5 * GRID + GAP))))
        count = ceil(len(cards) / ceil(len(cards) / count))
        width = (right - left - GAP * (count - 1)) / count
        y = top
        for start in range(0, len(cards), count):
            row = cards[start : start + count]
            height = max(TITLE + GRID + LINE * len(card.lines) for card in row)
            for number, card in enumerate(row):
                x = left + number * (width + GAP)
                key = f"card {card.title}"
                full = f"{card.title}: {'; '.join(card.lines)}"
                self._boxes[key] = Box(key, "card", x, y, width, height, card.recorded, full)
                mark = " ?" if card.recorded else ""
                self._text(x + GRID + HALF, y + 2.5 * GRID, card.title + mark, "title")
                for line, text in enumerate(card.lines):
                    at = y + TITLE + LINE * (line + 0.75)
                    self._text(x + GRID + HALF, at, text, "small", width - 3 * GRID)
            y += height + GAP
        return y - GAP

    # Lines.

    def _lines(self, levels: dict[int, float]) -> Iterator[ArrowLine]:
        for net in self._nets:
            heights = {
                level: top + GRID * self._levels[level].index(net)
                for level, top in levels.items()
                if net in self._levels[level]
            }
            for arrow in net.arrows:
                for source in net.sources:
                    points = self._route(net, source, arrow, heights)
                    kind = arrow.kind or self._kinds[source]
                    yield ArrowLine(arrow, tuple(_turns(points)), kind)

    def _route(
        self, net: _Net, source: str, arrow: Arrow, heights: dict[int, float]
    ) -> Iterator[Point]:
        end = self._box(arrow.target)
        enter = self._places[arrow.target].entry
        last = self._x[enter, net.key]
        y = self._pin(arrow)
        if source in self._edges:
            frame, row = self._frames[source], self._places[source].row
            x = frame.x + 4 * GRID
            leave = _Slot(row, -1)
            yield x, frame.bottom if row == ABOVE else frame.y
        else:
            box, leave = self._box(source), self._places[source].exit
            tail = box.y + GRID + HALF + GRID * self._tails[source].index(net.key)
            x = self._x[leave, net.key]
            yield box.right, tail
            yield x, tail
        if leave != enter:
            levels = [self._level(net, leave), self._level(net, enter)]
            if levels[0] == levels[1]:
                yield x, heights[levels[0]]
            elif leave == net.crossing:
                yield x, heights[levels[1]]
            elif enter == net.crossing:
                yield x, heights[levels[0]]
            else:
                assert net.crossing
                middle = self._x[net.crossing, net.key]
                yield x, heights[levels[0]]
                yield middle, heights[levels[0]]
                yield middle, heights[levels[1]]
            yield last, heights[levels[0] if enter == net.crossing else levels[1]]
        yield last, y
        yield end.x, y

    def _box(self, key: str) -> Box:
        return self._boxes.get(key) or self._frames[key]

    def _pin(self, arrow: Arrow) -> float:
        box = self._box(arrow.target)
        lines = self._above_pins[arrow.target]
        return box.y + TITLE + LINE * (lines + self._pins[arrow.target].index(arrow)) + GRID

    @cached_property
    def _above_pins(self) -> dict[str, int]:
        blocks = {b.key: 1 + len(b.subnets) for b in self._picture.blocks}
        nodes = [n for b in self._picture.blocks for n in b.nodes]
        return blocks | {n.key: len(n.lines) for n in (*nodes, *self._outside)}


def _turns(points: Iterable[Point]) -> Iterator[Point]:
    """Remove points within straight stretches."""
    kept: list[Point] = []
    for point in points:
        if kept and kept[-1] == point:
            continue
        if len(kept) > 1 and (
            kept[-2][0] == kept[-1][0] == point[0] or kept[-2][1] == kept[-1][1] == point[1]
        ):
            kept.pop()
        kept.append(point)
    yield from kept


def fitted(text: str, style: str, width: float) -> str:
    most = int(width / CHARACTER[style])
    return text if len(text) <= most else f"{text[: max(most - 1, 1)]}…"
