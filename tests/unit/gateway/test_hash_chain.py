"""The hash chain that the audit log and the collector's record share."""

from __future__ import annotations

import pytest

from ringfence.gateway.audit.hash_chain import GENESIS, Break, Position, digest

LINES = [f"line {number}".encode() for number in range(6)]
PREVIOUS = [GENESIS, *map(digest, LINES)]


def breaks(*numbers: int, position: Position | None = None) -> list[Break]:
    """Return the breaks that a verifier of an intact chain reports for these lines in this
    order."""
    position = position or Position()
    found = (position.follow(LINES[n], n, PREVIOUS[n]) for n in numbers)
    return [each for each in found if each]


def test_an_intact_chain_has_no_break_wherever_it_is_entered() -> None:
    assert breaks(0, 1, 2, 3, 4, 5) == []
    assert breaks(3, 4, 5) == []


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0, 1, 3, 4), [Break("removed", 1, 3)]),
        ((0, 1, 1, 2), [Break("moved", 1, 1)]),
        ((0, 2, 1, 3), [Break("removed", 0, 2), Break("moved", 2, 1), Break("removed", 1, 3)]),
    ],
)
def test_numbers_out_of_order_show(numbers: tuple[int, ...], expected: list[Break]) -> None:
    assert breaks(*numbers) == expected


def test_a_changed_line_shows_at_the_next_one() -> None:
    position = Position()
    position.follow(LINES[0], 0, PREVIOUS[0])
    assert position.follow(b"line 1, changed", 1, PREVIOUS[1]) is None
    assert position.follow(LINES[2], 2, PREVIOUS[2]) == Break("changed", 1, 2)
    assert position.follow(LINES[3], 3, PREVIOUS[3]) is None


def test_an_unreadable_line_counts_as_one_and_breaks_what_follows_it() -> None:
    position = Position()
    position.follow(LINES[0], 0, PREVIOUS[0])
    position.skip(b"garbled")
    assert position.follow(LINES[2], 2, PREVIOUS[2]) == Break("changed", 1, 2)


def test_a_verifier_that_knows_the_beginning_holds_the_first_line_to_it() -> None:
    start = Position(-1, GENESIS)
    assert breaks(0, 1, position=start) == []
    assert breaks(1, position=Position(-1, GENESIS)) == [Break("removed", -1, 1)]
    assert Position(-1, GENESIS).follow(LINES[0], 0, "f" * 64) == Break("changed", -1, 0)
