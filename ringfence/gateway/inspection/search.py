"""The search of leaves for personal data and secrets: each alone, across neighbours, and copies."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence

from ringfence.gateway.inspection import plain_text
from ringfence.gateway.inspection.detector import Detector
from ringfence.gateway.inspection.findings import SHORTEST
from ringfence.gateway.inspection.messages import Leaf, Replacement
from ringfence.gateway.inspection.plain_text import Plain

_BETWEEN = "\x1e"
"""Stands between texts that are searched in one go. No pattern has it."""
_QUOTED_END = '"' + _BETWEEN
_COMPLETE = frozenset({"email", "ip_address", "phone"})
"""Types of which a longer value is found when text touches them."""
_COPIED = 64
"""Different values of one message whose copies are looked for."""
_COPIED_LENGTH = 128
"""Longer values are tokens, which are found wherever they are."""


def search(leaves: Sequence[Leaf], before: str, detector: Detector) -> None:
    """Set the replacements of leaves. `before`: the text of the stream before the first one."""
    _search_each(leaves, detector)
    _search_across([leaf for leaf in leaves if leaf.block], before, detector)
    for leaf in leaves:
        if leaf.replacements:
            leaf.join_overlaps()


def search_copies(leaves: Sequence[Leaf]) -> None:
    """Replace a value that was found in one leaf in all of them: text and structured copies."""
    values: dict[str, Replacement] = {}
    known: Counter[str] = Counter()
    for leaf in leaves:
        for found in leaf.replacements:
            written = leaf.text[found.start : found.end]
            known[written] += 1
            if (
                SHORTEST <= len(written) <= _COPIED_LENGTH
                and len(values) < _COPIED
                and not found.is_rest
            ):
                values.setdefault(written, found)
    everything = _BETWEEN.join([leaf.text for leaf in leaves])
    more_often = [value for value in values if everything.count(value) > known[value]]
    if not more_often:
        return
    expression = re.compile(
        "|".join(
            rf"(?<![A-Za-z0-9]){re.escape(value)}(?![A-Za-z0-9])"
            for value in sorted(more_often, key=len, reverse=True)
        )
    )
    for leaf in leaves:
        if len(leaf.text) < SHORTEST:
            continue
        more = [
            Replacement(*match.span(), values[match[0]].type, values[match[0]].value)
            for match in expression.finditer(leaf.text)
        ]
        if more:
            places = {(found.start, found.end) for found in more}
            kept = [f for f in leaf.replacements if (f.start, f.end) not in places]
            leaf.replacements = [*kept, *more]
            leaf.join_overlaps()


def _search_each(leaves: Sequence[Leaf], detector: Detector) -> None:
    together = _BETWEEN.join([leaf.text for leaf in leaves])
    as_written = plain_text.is_plain(together.replace(_BETWEEN, "\n")) and not (
        plain_text.may_be_escaped(together)
    )
    views: list[tuple[int, int, Plain | None]] = []
    texts: list[str] = []
    starts: list[int] = []
    length = 0
    for index, leaf in enumerate(leaves):
        text, context = leaf.text, leaf.context
        if len(text) < SHORTEST:
            continue
        plain = None if as_written and _BETWEEN not in text else plain_text.plain(text)
        while True:
            views.append((index, len(context), plain))
            starts.append(length)
            if plain is not None:
                text = plain.text
            texts += (context, text, _QUOTED_END) if context else (text, _BETWEEN)
            length += len(text) + (len(context) + 2 if context else 1)
            if plain is None or plain.starts is not None:
                break
            plain = plain_text.unescaped(plain)
            if plain is None:
                break
    for finding in detector.find("".join(texts)) if texts else ():
        number = bisect_right(starts, finding.start) - 1
        index, offset, view = views[number]
        start = max(finding.start - starts[number] - offset, 0)
        end = finding.end - starts[number] - offset
        if end > start:
            place = (start, end) if view is None else view.span(start, end)
            leaves[index].replace(*place, finding.type, finding.value)


def _search_across(blocks: Sequence[Leaf], before: str, detector: Detector) -> None:
    """Find values that begin in one text and end in another, one or many blocks later."""
    if len(blocks) + bool(before) < 2:
        return
    texts = [before, *(leaf.text for leaf in blocks)]
    borders = [0]
    for text in texts:
        borders.append(borders[-1] + len(text))
    plain = plain_text.plain("".join(texts))
    complete = [
        [(found.start, found.end) for found in leaf.replacements if found.type in _COMPLETE]
        for leaf in blocks
    ]
    for view in (plain, plain_text.unescaped(plain)):
        if view is None:
            continue
        for finding in detector.find(view.text):
            start, end = view.span(finding.start, finding.end)
            first = bisect_right(borders, start) - 1
            last = bisect_right(borders, end - 1) - 1
            if first == last:
                continue
            if finding.type in _COMPLETE and any(
                low + borders[number] < end and high + borders[number] > start
                for number in range(max(first, 1), last + 1)
                for low, high in complete[number - 1]
            ):
                continue  # complete without its neighbours, which only touch it
            for number in range(max(first, 1), last + 1):
                leaf = blocks[number - 1]
                low = max(start - borders[number], 0)
                high = min(end - borders[number], len(leaf.text))
                if high > low:
                    # The part that was sent before cannot be masked; the rest carries the mask.
                    is_rest = number > max(first, 1)
                    leaf.replacements.append(
                        Replacement(low, high, finding.type, finding.value, is_rest)
                    )
