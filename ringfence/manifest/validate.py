"""The verb `validate`: prints every problem of manifests, or a summary of a valid one."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence.manifest import validation
from ringfence.manifest.errors import ManifestError
from ringfence.manifest.validation.problem import Problem


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path, help="environment.yaml")
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="json: one list of {file, line, column, path, message} on standard output",
    )


def run(args: argparse.Namespace) -> int:
    """Print the problems of all files. Exit status 2 if there are any.

    Warnings are for people: the JSON does not contain them, and they change no status.
    """
    problems: list[Problem] = []
    for file in args.files:
        try:
            manifest = validation.check(file)
        except ManifestError as error:
            problems += error.problems
        else:
            if args.format == "text":
                print(f"{validation.display_name(file)}: valid: {_summary(manifest.value)}")
                for warning in manifest.warnings:
                    print(f"warning: {warning}", file=sys.stderr)
    if args.format == "json":
        print(json.dumps([problem.as_dict() for problem in problems], indent=2))
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
    return 2 if problems else 0


def _summary(document: Mapping[str, Any]) -> str:
    tools = sum(len(server["tools"]) for server in document["servers"].values())
    counts = [
        (len(document["hosts"]), "host"),
        (len(document["servers"]), "MCP server"),
        (tools, "tool"),
        (len(document["roles"]), "role"),
        (len(document["principals"]), "principal"),
        (len(document["administrators"]), "administrator"),
    ]
    listed = ", ".join(f"{count} {what}{'s' * (count != 1)}" for count, what in counts)
    return f"{document['name']} ({document['stage']}): {listed}"
