"""`ringfence diagram`: draw the network of a manifest."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ringfence.drawing.picture import NothingToDrawError
from ringfence.flows.topology import page
from ringfence.manifest.model import Environment


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("page", type=Path, metavar="PAGE.html", help="the page to write")
    parser.add_argument("--environment", type=Path, default="inventories/lab/environment.yaml")


def run(args: Namespace) -> int:
    """Return 0 once the page is written, 2 if the input is not usable."""
    try:
        args.page.write_text(page.render(Environment.load(args.environment)), encoding="utf-8")
    except NothingToDrawError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{args.page}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    return 0
