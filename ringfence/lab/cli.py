"""`ringfence lab`: boot an environment's hosts on this machine, use them, take them down."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

from ringfence.lab import image, lab, removal, requirements, state
from ringfence.lab.errors import LabError, UnusableError
from ringfence.manifest.model import Environment

DEFAULT_ENVIRONMENT = Path("inventories/lab/environment.yaml")


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, summary: str, run: Callable[[argparse.Namespace], int]):
        sub = actions.add_parser(name, help=summary, description=summary)
        sub.set_defaults(lab_action=run)
        sub.add_argument(
            "--environment",
            type=Path,
            default=None,
            metavar="PATH",
            help=f"manifest (default: {DEFAULT_ENVIRONMENT})",
        )
        return sub

    def manifest(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("manifest", nargs="?", type=Path, help="same as --environment")

    up = action("up", "boot every host that is not running", _up)
    manifest(up)
    up.add_argument("--release", choices=image.RELEASES, help="Debian release (default: trixie)")
    up.add_argument("--fresh", action="store_true", help="take a running lab down first")
    down = action("down", "remove the lab and its hosts", _down)
    manifest(down)
    down.add_argument("--all", action="store_true", help="every lab on this machine")
    down.add_argument(
        "--purge", action="store_true", help="also delete the identities that the lab made"
    )
    status = action("status", "show the hosts; exit status 0 if all are running", _status)
    manifest(status)
    status.add_argument("--json", action="store_true")
    action("prepare", "install the Debian packages that the lab needs", _prepare)
    for name, summary, run in (
        ("ssh", "log in to a host over the network", _ssh),
        ("exec", "run a command in a host, `router`, `client` or an intruder", _exec),
    ):
        sub = action(name, summary, run)
        sub.add_argument("node", metavar="HOST")
        sub.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    for name, summary in (
        ("kill", "turn a host off without a shutdown"),
        ("start", "boot a stopped host with the files it had"),
        ("disconnect", "take a host off its network"),
        ("reconnect", "put it back on its network"),
        ("reset", "restore a host to its first boot"),
    ):
        action(name, summary, _on_host).add_argument("node", metavar="HOST")
    for name, summary in (
        ("intrude", "connect an attacker's node, intruder.SEGMENT, to a segment"),
        ("withdraw", "remove that node"),
    ):
        action(name, summary, _on_host).add_argument("node", metavar="SEGMENT")
    for name, summary in (
        ("enforce", "load access lists into the router that pass only what the manifest declares"),
        ("lift", "remove the router's access lists"),
    ):
        action(name, summary, _on_router)


def run(args: argparse.Namespace) -> int:
    try:
        return args.lab_action(args)
    except LabError as error:
        print(f"ringfence lab: {error}", file=sys.stderr)
        return error.exit_status


def _usable() -> None:
    if reason := requirements.unavailable():
        raise UnusableError(reason)


def _lab(args: argparse.Namespace) -> lab.Lab:
    environment = Environment.load(_manifest(args))
    return lab.Lab(environment, getattr(args, "release", None), say=_say())


def _manifest(args: argparse.Namespace) -> Path:
    path: Path = args.environment or getattr(args, "manifest", None) or DEFAULT_ENVIRONMENT
    return path.resolve()


def _up(args: argparse.Namespace) -> int:
    _usable()
    try:
        if args.fresh:
            _lab(args).discard()
        _lab(args).up()
    except KeyboardInterrupt:
        print("interrupted; `ringfence lab up` continues, `ringfence lab down` removes the lab")
        return 130
    return 0


def _down(args: argparse.Namespace) -> int:
    if not args.all:
        _usable()
        _lab(args).down(purge=args.purge)
        return 0
    names = removal.everything()
    if names:
        _usable()
    states = {removal.recorded_state(name) for name in names} | {_manifest(args).parent / ".state"}
    for name in names:
        removal.down(name, say=_say())
    for directory in states if args.purge else ():
        if directory and state.purge(directory):
            print(f"deleted {directory}")
    return 0


def _status(args: argparse.Namespace) -> int:
    _usable()
    statuses = _lab(args).status()
    if args.json:
        print(json.dumps([asdict(status) for status in statuses], indent=2))
    else:
        rows = [("HOST", "ADDRESS", "STATE", "RELEASE", "UPTIME")]
        rows += [
            (s.name, s.address, s.state, s.release or "-", _duration(s.uptime_seconds))
            for s in statuses
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    return 0 if lab.all_running(statuses) else 1


def _prepare(_args: argparse.Namespace) -> int:
    installed = requirements.prepare()
    print(f"installed {', '.join(installed)}" if installed else "nothing to do")
    return 0


def _ssh(args: argparse.Namespace) -> int:
    _usable()
    return _replace_process(_lab(args).ssh(args.node, _command(args)))


def _exec(args: argparse.Namespace) -> int:
    _usable()
    return _replace_process(_lab(args).command(args.node, _command(args) or ["/bin/bash"]))


def _on_host(args: argparse.Namespace) -> int:
    _usable()
    getattr(_lab(args), args.action)(args.node)
    return 0


def _on_router(args: argparse.Namespace) -> int:
    _usable()
    getattr(_lab(args), args.action)()
    return 0


def _command(args: argparse.Namespace) -> list[str]:
    return args.command[1:] if args.command[:1] == ["--"] else args.command


def _replace_process(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 - an argument list, no shell


def _say() -> Callable[[str], None]:
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {text}", flush=True)

    return say


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
