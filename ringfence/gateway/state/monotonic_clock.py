"""A wall clock that cannot be set back, and whose leaps ahead let nobody in.

The time of day decides when access ends, and it can be set: by hand, by an attacker on the network
(NTP), by a machine that was suspended. The machine's monotonic clock cannot be set, but knows no
day. So access ends by the later of both, and a refusal by the earlier.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class MonotonicClock:
    """Trusts the first wall time that it gets, and from there the monotonic clock."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None

    def latest(self, now: float) -> float:
        """The time that ends access: setting the clock back neither revives nor extends it."""
        return max(now, self._elapsed(now))

    def earliest(self, now: float) -> float:
        """The time that ends a refusal: a clock that leaps ahead does not end it."""
        return min(now, self._elapsed(now))

    def _elapsed(self, now: float) -> float:
        monotonic = self._monotonic()
        if self._offset is None:
            self._offset = now - monotonic
        return self._offset + monotonic
