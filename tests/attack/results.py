"""What came of attacks, as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.attack.attacks import FIREWALL, Attack
from tests.attack.ground import Alert, Outcome


@dataclass(frozen=True)
class Result:
    attack: str
    stopped: bool
    by: str
    alert: str | None
    """The first that was raised, without addresses."""
    by_whom: str | None
    milliseconds: int | None
    """From the packet to the collector."""
    note: str

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
        )


def table(results: Sequence[Result]) -> Iterator[str]:
    """In Markdown."""
    yield "| attack | stopped by | seen as | ms | |"
    yield "|---|---|---|---:|---|"
    for each in results:
        stopped = each.by if each.stopped else "**no**"
        seen = f"{each.alert} ({each.by_whom})" if each.alert else "**no**"
        yield f"| {each.attack} | {stopped} | {seen} | {each.milliseconds or ''} | {each.note} |"


def _words(alert: Alert) -> str:
    return "dropped" if alert.message.startswith(FIREWALL) else alert.message
