"""The `ringfence` command: verbs for what Pulumi, Ansible and pytest cannot do."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from ringfence.manifest.errors import ManifestError

VERBS = {
    "validate": ("ringfence.manifest.validate", "check an environment.yaml"),
    "init": ("ringfence.manifest.init", "write a starter manifest for a new environment"),
    "lab": ("ringfence.lab.cli", "boot an environment's hosts on this machine"),
    "rehearse": ("ringfence.rehearsal.cli", "provision a stack in an emulated AWS, and show it"),
    "enrol": (
        "ringfence.identity.second_factor",
        "show an administrator the secret of their one-time codes",
    ),
    "certificate": ("ringfence.identity.pki", "issue a principal's client certificate"),
    "token revoke": (
        "ringfence.operator.revocations",
        "revoke the access of a token, a principal or a certificate",
    ),
    "token restore": ("ringfence.operator.revocations", "restore access that was revoked"),
    "token revocations": ("ringfence.operator.revocations", "show what is revoked"),
    "token": ("ringfence.identity.issuer", "issue a principal's access token for the gateway"),
    "wheelhouse": ("ringfence.packages.wheelhouse", "lock the packages of MCP servers by hash"),
    "call": ("ringfence.operator.call", "list or call the tools of an MCP server"),
    "grant": (
        "ringfence.operator.grants",
        "request, approve or revoke the use of a sensitive tool",
    ),
    "decisions": (
        "ringfence.operator.decisions",
        "show the gateway's decisions, from its audit log",
    ),
    "diagram": ("ringfence.flows.topology.cli", "draw segments, hosts, and declared connections"),
    "flows": ("ringfence.flows.cli", "compare observed connections with declared ones"),
    "pins": ("ringfence.operator.pins", "review and approve the definitions of tools"),
    "control": ("ringfence.report.control", "show what a control is served by, and its result"),
    "report": ("ringfence.report.cli", "show or convert compliance reports"),
}
"""Verbs: a module with `arguments(parser)` and `run(args) -> exit status`, and a line of help."""


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse a command line. Print the usage and raise `SystemExit` if it is not valid."""
    if " ".join(argv[:2]) in VERBS:
        argv = [" ".join(argv[:2]), *argv[2:]]
    parser = argparse.ArgumentParser(prog="ringfence", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, (module, summary) in VERBS.items():
        subparser = verbs.add_parser(verb, help=summary, description=summary)
        # Importing only this verb makes a start cost milliseconds, not seconds.
        if verb in argv[:1]:
            import_module(module).arguments(subparser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run a verb. Exit status 0: done; 1: the answer is no; 2: input or machine is not usable."""
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        return import_module(VERBS[args.verb][0]).run(args)
    except ManifestError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
