"""`ringfence report`: show a compliance report again, or convert it."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from ringfence.report import document, page, terminal

LATEST = Path("reports/latest/compliance.json")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        default=LATEST,
        help=f"a report in JSON (default: {LATEST})",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write it as an HTML page instead"
    )
    parser.add_argument(
        "--frameworks",
        action="store_true",
        help="show also how far the controls that passed cover each framework",
    )


def run(args: argparse.Namespace) -> int:
    """Return 0 if shown or converted, 2 if the file is not a report or the output not writable."""
    try:
        report = document.read(args.file)
        if args.html:
            page.write(report, args.html)
            return 0
    except document.ReportError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{args.html}: {error.strerror}", file=sys.stderr)
        return 2
    heading = f"{report.environment}, {report.time:%Y-%m-%d %H:%M} UTC"
    print(heading)
    print(terminal.render(report, shutil.get_terminal_size().columns, sys.stdout.isatty()))
    if args.frameworks:
        print(f"\n{terminal.frameworks(report)}")
    return 0
