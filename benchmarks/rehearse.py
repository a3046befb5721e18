"""Duration of a rehearsal: a manifest with 200 servers, provisioned and checked.

Alternative in the same run: Checkov. It reads the same stacks as a plan, without the answers of AWS
and without the declarations of the manifest.
"""

from __future__ import annotations

import json
import sys
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from scratch import ROOT, executable, report, timed

EXAMPLE = ROOT / "inventories/aws-example/environment.yaml"
CHECKOV = Path(sys.prefix) / "checkov/bin/checkov"
SERVERS = 200


def with_servers(count: int) -> dict[str, Any]:
    """Return the example with copies of one server, each on its own host."""
    document = yaml.safe_load(EXAMPLE.read_text())
    copied = deepcopy(document["servers"]["time"])
    del copied["host"]
    flows, why = document["network"]["flows"], "the gateway forwards allowed calls"
    for number in range(count - len(document["servers"])):
        name = f"copy-{number}"
        document["servers"][name] = copied | {"segment": "servers", "port": 9000 + number}
        flows.append({"from": {"segment": "edge"}, "to": {"server": name}, "why": why})
    return document


def verified(manifest: Path) -> float:
    checks = (executable("pytest"), "tests/compliance", "--rehearsed", "-q")
    return timed(*checks, "--environment", manifest)


def main() -> None:
    with TemporaryDirectory(prefix="ringfence-bench-") as directory:
        small = verified(EXAMPLE)
        many = Path(directory, "environment.yaml")
        many.write_text(json.dumps(with_servers(SERVERS), indent=1))
        large = verified(many)
        alternative = 0.0
        for stack in ("account", "environment"):
            plan = Path(directory, f"{stack}.json")
            exported = ("rehearse", EXAMPLE, "--stack", stack, "--export", plan)
            timed(executable("ringfence"), *exported)
            scan = ("--framework", "terraform_plan", "--skip-download", "--soft-fail", "--compact")
            alternative += timed(CHECKOV, "--file", plan, *scan)
    report(
        "rehearse",
        {
            "both_stacks_and_checks_seconds": small,
            f"{SERVERS}_servers_and_checks_seconds": large,
            "alternative": "Checkov on the plans of both stacks",
            "alternative_seconds": alternative,
            "ratio": small / alternative,
        },
    )


if __name__ == "__main__":
    main()
