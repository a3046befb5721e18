"""An estimate of costs as text."""

from __future__ import annotations

from collections.abc import Iterator

from ringfence.cloud import cost, prices
from ringfence.cloud.cost import CostLine, Estimate, Option
from ringfence.cloud.prices import Figure
from ringfence.rehearsal.record import Rehearsal

HIGH = 0.05
"""Minimum share of the sum for a line whose manifest keys the bill names."""


def of(rehearsal: Rehearsal) -> Estimate:
    return cost.estimate(rehearsal.resources, rehearsal.account.region)


def render(estimate: Estimate) -> str:
    return "\n".join(_lines(estimate))


def total(estimate: Estimate) -> str:
    lacking = len(estimate.unpriced)
    without = f", excluding {lacking} without a price" if lacking else ""
    return (
        f"{estimate.monthly:,.2f} USD a month in {estimate.region} before tax{without}; "
        f"use costs extra; prices read on {prices.table().read}"
    )


def _lines(estimate: Estimate) -> Iterator[str]:
    yield f"Cost: {total(estimate)}"
    width = max((len(line.what) for line in estimate.fixed), default=0)
    for line in estimate.fixed:
        yield _fixed(line, width, estimate.region)
    if estimate.rates:
        yield "By use:"
    for rate in estimate.rates:
        mark = _mark(rate.figure, estimate.region)
        yield f"{usd(rate.figure.usd):>10}{mark:2} per {rate.unit}: {rate.what}"
    if high := [line for line in estimate.fixed if line.options and _is_high(line, estimate)]:
        yield "Keys of the manifest that decide on the highest costs:"
        for line in high:
            yield f"  {line.what}: {'; '.join(map(_option, line.options))}"
    yield from _footnotes(estimate)


def _fixed(line: CostLine, width: int, region: str) -> str:
    if line.figure is None:
        return f"  no price  {line.what:{width}}  {line.count:g}"
    count = f"{line.count:g} at {usd(line.figure.usd)}{_mark(line.figure, region)} per {line.unit}"
    shown = f"{line.monthly:>10,.2f}  {line.what:{width}}  {count:34} {' '.join(line.controls)}"
    return shown.rstrip()


def usd(amount: float) -> str:
    """Format with cents, and with further digits only where the price has them."""
    whole, _, rest = f"{amount:,.7f}".partition(".")
    return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"


def _is_high(line: CostLine, estimate: Estimate) -> bool:
    return line.monthly >= HIGH * estimate.monthly


def _option(option: Option) -> str:
    return f"{option.path} ({option.effect})"


def _mark(figure: Figure, region: str) -> str:
    return ("*" if figure.region != region else "") + ("" if figure.source.reread else "?")


def _footnotes(estimate: Estimate) -> Iterator[str]:
    figures = [each.figure for each in (*estimate.fixed, *estimate.rates) if each.figure]
    fallback = prices.table().fallback
    if any(figure.region != estimate.region for figure in figures):
        yield f"* price of {fallback}; the table has none for {estimate.region}"
    for source in {figure.source for figure in figures if not figure.source.reread}:
        yield f"? {source.title}"
