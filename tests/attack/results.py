"""Results of attacks, as a table and a page for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

import jinja2

import ringfence.report
from ringfence.controls import catalogue as controls
from tests.attack.attacks import FIREWALL, Attack
from tests.attack.ground import Alert, Outcome

# Shares the style sheet of the compliance report.
_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(ringfence.report.__file__).parent]),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


@dataclass(frozen=True)
class Result:
    attack: str
    stopped: bool
    by: str
    alert: str | None
    """The first alert, without addresses."""
    alert_host: str | None
    milliseconds: int | None
    """Milliseconds from the packet to the collector."""
    note: str
    controls: tuple[str, ...]

    @classmethod
    def of(cls, attack: Attack, outcome: Outcome, alert: Alert | None) -> Result:
        return cls(
            attack.name,
            not outcome.succeeded,
            attack.blocked_by,
            _words(alert) if alert else None,
            alert.host if alert else None,
            round((alert.received - alert.time) * 1000) if alert else None,
            attack.note,
            tuple(attack.controls),
        )


def table(results: Sequence[Result]) -> Iterator[str]:
    """Return a table in Markdown."""
    yield "| attack | stopped by | detected as | ms | controls | |"
    yield "|---|---|---|---:|---|---|"
    for each in results:
        stopped = each.by if each.stopped else "**no**"
        seen = f"{each.alert} ({each.alert_host})" if each.alert else "**no**"
        cells = (
            *(each.attack, stopped, seen, str(each.milliseconds or "")),
            *(", ".join(each.controls), each.note),
        )
        yield f"| {' | '.join(cells)} |"


def page(results: Sequence[Result], benign: int | None, time: datetime) -> str:
    """Return a self-contained HTML page. `benign` is the number of alerts during normal work."""
    latencies = [each.milliseconds for each in results if each.milliseconds is not None]
    return _templates.get_template("attacks.html.j2").render(
        results=sorted(results, key=lambda each: each.stopped and each.alert is not None),
        stopped=sum(each.stopped for each in results),
        seen=sum(each.alert is not None for each in results),
        slowest=max(latencies, default=None),
        middle=round(median(latencies)) if latencies else None,
        benign=benign,
        catalogue=controls.load(),
        time=time,
    )


def _words(alert: Alert) -> str:
    return "dropped" if alert.message.startswith(FIREWALL) else alert.message
