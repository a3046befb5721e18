"""Prices of AWS, from the dated table `prices.yaml`."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("prices.yaml")
# The Python parser takes a tenth of a second; libyaml is not everywhere.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class PriceSource:
    title: str
    where: str
    dated: str
    reread: bool = True
    """False for common knowledge that nobody read in a source for this table."""


@dataclass(frozen=True)
class Figure:
    usd: float
    region: str
    """Region of the figure: the fallback, if the table has none for the region itself."""
    source: PriceSource


@dataclass(frozen=True)
class Price:
    key: str
    what: str
    unit: str
    usage: bool
    """The price is a rate of use, and no part of the sum."""
    figures: Mapping[str, Figure]

    @property
    def is_hourly(self) -> bool:
        return self.unit.startswith("hour")


@dataclass(frozen=True)
class Prices:
    read: datetime.date
    fallback: str
    hours: int
    """Hours per month."""
    sources: Mapping[str, PriceSource]
    prices: Mapping[str, Price]
    families: Mapping[str, Mapping[str, Figure]]
    """Hourly figures of the size `large`, by instance family and region."""
    sizes: Mapping[str, float]
    """Factors of the sizes, relative to `large`."""

    def figure(self, key: str, region: str) -> Figure:
        return self._in(self.prices[key].figures, region)

    def instance(self, kind: str, region: str) -> Figure | None:
        """Return the price per hour, or None for an unknown type."""
        family, _, size = kind.partition(".")
        if family not in self.families or size not in self.sizes:
            return None
        large = self._in(self.families[family], region)
        return Figure(round(large.usd * self.sizes[size], 5), large.region, large.source)

    def _in(self, figures: Mapping[str, Figure], region: str) -> Figure:
        return figures[region if region in figures else self.fallback]


@cache
def table() -> Prices:
    read: dict[str, Any] = yaml.load(TABLE.read_text(), Loader=_Loader)  # noqa: S506 (a safe loader)
    sources = {
        key: PriceSource(
            given["title"], given["where"], str(given["dated"]), given.get("reread", True)
        )
        for key, given in read["sources"].items()
    }
    instances = read["instances"]
    return Prices(
        read["read"],
        read["fallback"],
        read["hours"],
        sources,
        {
            key: Price(
                key,
                given["what"],
                given["unit"],
                given.get("usage", False),
                {
                    region: Figure(figure["usd"], region, sources[figure["source"]])
                    for region, figure in given["figures"].items()
                },
            )
            for key, given in read["prices"].items()
        },
        {
            family: {
                region: Figure(usd, region, sources[instances["source"]])
                for region, usd in figures.items()
            }
            for family, figures in instances["families"].items()
        },
        instances["sizes"],
    )
