"""Second factors that the host has neither seen nor is tired of.

The host takes a code once and six codes a minute; without heed to that, a suite that is
run three times in a row would call a hardened host broken.
"""

from __future__ import annotations

import time

from pyotp.totp import TOTP

from ringfence.identity import second_factor
from ringfence.manifest.model import Administrator, Environment
from ringfence.verify.targets import Target

STEP_SECONDS = 30
NEIGHBOURS = (0, 1, -1)
"""Steps of time whose codes the host takes, the present one first (WINDOW_SIZE 3)."""
WAIT_SECONDS = 100
"""After this time every used code is out of its window, and every attempt of the minute is over."""


def wait_for_attempt(host: Target, administrator: Administrator) -> None:
    """Return when the host listens to another code; at the latest after `WAIT_SECONDS`."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not _listens(_options(host, administrator)) and time.monotonic() < deadline:
        time.sleep(1)


def unused(host: Target, environment: Environment, administrator: Administrator) -> str:
    """The code of a person whose secret lies on this machine."""
    secret = second_factor.secret_file(environment, administrator.account).read_text().strip()
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        options, now = _options(host, administrator), int(time.time()) // STEP_SECONDS
        used = options.get("DISALLOW_REUSE", [])
        fresh = [now + step for step in NEIGHBOURS if now + step not in used]
        if (fresh and _listens(options)) or time.monotonic() > deadline:
            return TOTP(secret).at((fresh or [now])[0] * STEP_SECONDS)
        time.sleep(1)


def _options(host: Target, administrator: Administrator) -> dict[str, list[int]]:
    """Numbers behind each option in the host's copy, never the secret; empty without one."""
    lines = host.run(
        "sed -n 's/^\" //p' /var/lib/ringfence/totp/%s 2>/dev/null", administrator.account
    ).stdout.splitlines()
    return {
        name: [int(number) for number in numbers if number.isdigit()]
        for name, *numbers in map(str.split, lines)
    }


def _listens(options: dict[str, list[int]]) -> bool:
    attempts, seconds, *times = options.get("RATE_LIMIT", [1, 0])
    return sum(when + seconds >= int(time.time()) for when in times) < attempts
