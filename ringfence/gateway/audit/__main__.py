"""`python -m ringfence.gateway.audit verify FILE…` verifies audit files against their chains."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ringfence.gateway.audit.verification import describe, verify_all


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 intact, 1 not intact, 2 unreadable."""
    parser = argparse.ArgumentParser(prog="python -m ringfence.gateway.audit")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verify = verbs.add_parser(
        "verify",
        help="verify audit files against their chains",
        description="Reports lines that were removed, changed or moved. Only the collector's copy "
        "shows whether lines are missing at the very end: look there for the last hash.",
    )
    verify.add_argument("files", nargs="+", type=Path, metavar="FILE", help="of one writer's name")
    options = parser.parse_args(arguments)
    by_name: dict[str, list[Path]] = {}
    for path in options.files:
        by_name.setdefault(path.name.rsplit("-", 2)[0], []).append(path)
    try:
        reports = [report for paths in by_name.values() for report in verify_all(paths)]
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    for line in describe(reports):
        print(line)
    return 0 if all(report.ok for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
