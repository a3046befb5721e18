"""`ringfence rehearse`: provisions a stack in an emulated AWS account and shows the result."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringfence.rehearsal.account import EmulatedAccount

STACKS = ("account", "environment")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("environment", type=Path, metavar="FILE", help="environment.yaml")
    parser.add_argument(
        "--stack",
        choices=STACKS,
        default="environment",
        help="environment (default): network, keys and logs of one environment; account: what all "
        "environments of an AWS account share (trail, detectors, guards)",
    )
    parser.add_argument(
        "--export",
        type=Path,
        metavar="PLAN.json",
        help="also write a Terraform plan for scanners (checkov -f PLAN.json "
        "--framework terraform_plan)",
    )
    parser.add_argument(
        "--diagram",
        type=Path,
        metavar="PAGE.html",
        help="also draw the environment: network, hosts and connections",
    )
    parser.add_argument(
        "--serve",
        action="store_true",
        help="serve the account to AWS tools on loopback, until Ctrl-C",
    )


class UnwritableError(Exception):
    """A file cannot be written."""


def run(args: argparse.Namespace) -> int:
    """Return 0 for success, 1 if the stack cannot be provisioned, 2 for unusable input."""
    try:
        # Pulumi and moto are in the extra `aws`, which may be missing.
        import moto  # noqa: F401
        import pulumi_aws  # noqa: F401
    except ModuleNotFoundError as error:
        print(
            f"Python package {error.name} is missing; install it: pip install 'ringfence[aws]'",
            file=sys.stderr,
        )
        return 2
    from ringfence.drawing.picture import NothingToDrawError
    from ringfence.manifest.model import Environment
    from ringfence.rehearsal.architecture import page
    from ringfence.rehearsal.engine.stacks import NotProvisionableError, rehearsed_stack
    from ringfence.rehearsal.output import bill, plan, tree
    from ringfence.rehearsal.record import RehearsalError

    environment = Environment.load(args.environment)
    try:
        with rehearsed_stack(environment, args.stack) as rehearsal:
            print(tree.render(rehearsal))
            if args.export:
                _write(args.export, json.dumps(plan.document(rehearsal), indent=1) + "\n")
            if args.diagram:
                _write(args.diagram, page.render(rehearsal, environment))
            print(f"\n{bill.render(bill.of(rehearsal))}")
            if args.serve:
                _serve(rehearsal.account)
    except (NotProvisionableError, NothingToDrawError, UnwritableError) as error:
        print(error, file=sys.stderr)
        return 2
    except RehearsalError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _serve(account: EmulatedAccount) -> None:
    from ringfence.rehearsal.serve import exports, served

    with served(account) as variables:
        print(f"\nThe account is served until Ctrl-C, to a shell with\n{exports(variables)}")
        sys.stdout.flush()  # a reader of a pipe waits for it
        with suppress(KeyboardInterrupt):
            Event().wait()


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnwritableError(f"{path}: {error.strerror}; name a writable file") from error
