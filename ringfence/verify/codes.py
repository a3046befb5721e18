"""Unused one-time codes, requested within the rate limit of a host.

A host accepts each code once, and six attempts a minute. Without this module, checks would fail on
a hardened host in the third of three runs in a row.
"""

from __future__ import annotations

import time

from pyotp.totp import TOTP

from ringfence.identity import second_factor
from ringfence.manifest.model import Administrator, Environment
from ringfence.verify.targets import Target

STEP_SECONDS = 30
WINDOW = (0, 1, -1)
"""Time steps whose codes the host accepts, the current one first (WINDOW_SIZE 3)."""
WAIT_SECONDS = 100
"""Seconds until every used code and every counted attempt has expired."""


def wait_for_attempt(host: Target, administrator: Administrator) -> None:
    """Wait until the host accepts another attempt, at most `WAIT_SECONDS`."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not _accepts_attempt(_options(host, administrator)) and time.monotonic() < deadline:
        time.sleep(1)


def unused(host: Target, environment: Environment, administrator: Administrator) -> str:
    """Return an unused code of an administrator whose secret is on this machine."""
    secret = second_factor.secret_file(environment, administrator.account).read_text().strip()
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        options, now = _options(host, administrator), int(time.time()) // STEP_SECONDS
        used = options.get("DISALLOW_REUSE", [])
        fresh = [now + step for step in WINDOW if now + step not in used]
        if (fresh and _accepts_attempt(options)) or time.monotonic() > deadline:
            return TOTP(secret).at((fresh or [now])[0] * STEP_SECONDS)
        time.sleep(1)


def _options(host: Target, administrator: Administrator) -> dict[str, list[int]]:
    """Return the numbers of each option in the host's secret file, without the secret itself."""
    lines = host.run(
        "sed -n 's/^\" //p' /var/lib/ringfence/totp/%s 2>/dev/null", administrator.account
    ).stdout.splitlines()
    return {
        name: [int(number) for number in numbers if number.isdigit()]
        for name, *numbers in map(str.split, lines)
    }


def _accepts_attempt(options: dict[str, list[int]]) -> bool:
    attempts, seconds, *times = options.get("RATE_LIMIT", [1, 0])
    return sum(when + seconds >= int(time.time()) for when in times) < attempts
