"""Events of a host, as the collector recorded them."""

from __future__ import annotations

import json
from typing import Any

from ringfence.manifest.model import Environment
from ringfence.report import not_applicable
from ringfence.verify.targets import Target, Targets

RECORD = "/var/log/ringfence"

# Prints the newest record of a host that contains a text, or nothing in time.
FIND_RECORD = """
for try in $(seq $((seconds * 5))); do
  for file in {record}/$host/*.jsonl; do :; done
  tail -n 20000 "$file" 2>/dev/null | grep -F -e "$text" | tail -n 1 | grep . && exit
  test -d {record} || exit
  sleep 0.2
done
""".replace("{record}", RECORD)


def record_of(
    targets: Targets, environment: Environment, host: Target, text: str, seconds: int = 5
) -> Any:
    """Return the collector's record of a host's event; empty if none arrives in time."""
    collector = environment.log_sink.host
    if collector is None:
        not_applicable("the log sink is not a host of this environment; look there")
    setup = f"host='{host.manifest.name}'; text='{text}'; seconds={seconds}"
    found = targets[collector].once("sh -c %s", f"{setup}\n{FIND_RECORD}").stdout
    return json.loads(found) if found else None
