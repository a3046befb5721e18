"""A wall clock that is not believed when it jumps.

The time of day decides when access ends, and it can be set: by hand, by an attacker on the network
(NTP), by a machine that was suspended. The machine's monotonic clock cannot, but knows no day. So
what ends access goes by the later of both, and what ends a refusal by the earlier.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class SteadyTime:
    """Starts with the first time that it is told, which is believed."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None

    def latest(self, now: float) -> float:
        """When access ends by: setting the clock back revives and lengthens nothing."""
        return max(now, self._passed(now))

    def earliest(self, now: float) -> float:
        """When a refusal ends by: a clock that jumps ahead lets nobody in."""
        return min(now, self._passed(now))

    def _passed(self, now: float) -> float:
        monotonic = self._monotonic()
        if self._offset is None:
            self._offset = now - monotonic
        return self._offset + monotonic
