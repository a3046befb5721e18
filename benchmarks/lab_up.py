"""Time until two new Debian hosts answer SSH.

Alternative in the same run: the file system is built first, as at every boot without a shared
image.
"""

from __future__ import annotations

import tempfile

from scratch import environment, executable, report, timed


def main() -> None:
    ringfence = executable("ringfence")
    with (
        environment("bench-lab", 233) as env,
        tempfile.TemporaryDirectory(prefix="ringfence-cache-") as cache,
    ):
        up = (ringfence, "lab", "up", "--environment", env.path)
        down = (ringfence, "lab", "down", "--environment", env.path)
        try:
            timed(*up)
            timed(*down)
            warm = timed(*up)
            timed(*down)
            cold = timed(*up, settings={"RINGFENCE_CACHE": cache})
        finally:
            timed(*down)
    report(
        "lab-up",
        {
            "seconds": warm,
            "alternative": "building the file system first",
            "alternative_seconds": cold,
            "ratio": warm / cold,
        },
    )


if __name__ == "__main__":
    main()
