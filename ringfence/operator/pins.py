"""Approved definitions of tools: what an operator reviews, and keeps in git beside the manifest.

Gateways leave what servers say of their tools in files; `playbooks/pins.yml` fetches them into
`.state/observed/<gateway>/<server>.json`. `ringfence pins diff` shows how they differ from
`pins/<server>.json`, `ringfence pins approve` writes there what it has shown, and nothing else.
"""

from __future__ import annotations

import difflib
import getpass
import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from ringfence.gateway.inspection.hidden_characters import reveal
from ringfence.gateway.pins.definitions import (
    FIELDS,
    Pins,
    PinsError,
    definition_of,
    digest,
    faults,
    hidden,
)
from ringfence.manifest.model import Environment

State = Literal["approved", "new", "changed", "not offered", "not in the manifest"]

FETCH = "ansible-playbook -i {} playbooks/pins.yml"


class ReviewError(Exception):
    """What was observed or approved cannot be reviewed."""


@dataclass(frozen=True)
class Subject:
    """One tool under review."""

    server: str
    name: str
    state: State
    pin: Mapping[str, Any] | None
    """As the file has it."""
    observed: Mapping[str, Any] | None
    seen_by: tuple[str, ...]
    """Gateways, where not all of them have seen it."""

    @property
    def waits(self) -> bool:
        return self.state in {"new", "changed"}


def pins_of(environment: Environment) -> Path:
    return environment.path.parent / "pins"


def review(
    environment: Environment, observed: Path, server: str | None = None
) -> dict[str, list[Subject]]:
    """Every tool of the servers (or of one), by server. Raises `ReviewError`."""
    if server is not None and server not in environment.servers:
        known = ", ".join(environment.servers)
        raise ReviewError(
            f"{environment.path}: there is no server {reveal(server)}; it has {known}"
        )
    gateways = sorted(path for path in observed.glob("*") if path.is_dir())
    subjects: dict[str, list[Subject]] = {}
    for name in [server] if server is not None else environment.servers:
        pinned = read_pins(environment, name)["tools"]
        seen = {
            gateway.name: _observed(path, name)
            for gateway in gateways
            if (path := gateway / f"{name}.json").exists()
        }
        if seen or pinned:
            subjects[name] = list(_subjects(environment, name, pinned, seen))
    if not any(path.exists() for path in observed.glob(f"*/{server or '*'}.json")):
        raise ReviewError(
            f"{observed}: no gateway has been asked yet what servers say of their tools; "
            f"run: {FETCH.format(environment.path)}"
        )
    return subjects


def read_pins(environment: Environment, server: str) -> dict[str, Any]:
    """`pins/<server>.json`, or an empty one. Raises `ReviewError`."""
    path = pins_of(environment) / f"{server}.json"
    if not path.exists():
        return {"version": 1, "server": server, "tools": {}}
    document = _json(path)
    try:
        Pins(server, document)
    except PinsError as error:
        raise ReviewError(f"{pins_of(environment).parent}: {error}") from error
    return document


def approve(
    environment: Environment,
    subjects: Sequence[Subject],
    *,
    by: str,
    at: datetime,
    accept_hidden: bool = False,
) -> Path:
    """Pin the definitions of these tools, all of one server, as they were observed.

    Raises `ReviewError` for what the gateway would withhold all the same.
    """
    (server,) = {subject.server for subject in subjects}
    document = read_pins(environment, server)
    tools = document["tools"]
    for subject in subjects:
        definition = subject.observed
        assert definition is not None
        if found := objections(definition, accept_hidden=accept_hidden):
            raise ReviewError(f"{server}/{reveal(subject.name)}: {'; '.join(found)}")
        tools[subject.name] = {
            "sha256": digest(definition),
            "approved": {"by": by, "at": at.strftime("%Y-%m-%dT%H:%M:%SZ")},
            "accepted": bool(hidden(definition)),
            "definition": dict(definition),
        }
    document["tools"] = dict(sorted(tools.items()))
    path = pins_of(environment) / f"{server}.json"
    path.parent.mkdir(exist_ok=True)
    staged = path.with_suffix(".json.new")
    # ASCII: in a review of the file hidden characters are escapes, which one sees.
    staged.write_text(json.dumps(document, indent=2, ensure_ascii=True) + "\n")
    staged.replace(path)
    return path


def objections(definition: Mapping[str, Any], *, accept_hidden: bool = False) -> list[str]:
    found = [f"cannot be approved: {fault.detail}" for fault in faults(definition)]
    if (kinds := hidden(definition)) and not accept_hidden:
        found.append(
            f"hides characters ({', '.join(kinds)}); if they belong there: --accept-hidden"
        )
    return found


def difference(subject: Subject) -> Iterator[str]:
    """Lines for a terminal, in the form of `diff -u`; hidden characters are written out."""
    before = described(subject.pin["definition"]) if subject.pin else []
    after = described(subject.observed) if subject.observed else []
    title = f"{subject.server}/{reveal(subject.name)}"
    approved = (subject.pin or {}).get("approved", {})
    when = f"approved by {reveal(str(approved.get('by')))}, {reveal(str(approved.get('at')))}"
    yield from difflib.unified_diff(
        before,
        after,
        f"{title}: {when if subject.pin else 'never approved'}",
        f"{title}: observed",
        n=2,
        lineterm="",
    )


def described(definition: Mapping[str, Any]) -> list[str]:
    """A definition as lines, one a value, that differ where the definition does."""
    lines: list[str] = []
    for field in FIELDS:
        if field in definition:
            lines += _lines(field, definition[field])
    return lines


def _lines(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key in sorted(value):
            shown = key if key.isidentifier() and key.isascii() else f"[{_quoted(key)}]"
            yield from _lines(f"{path}.{shown}", value[key])
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _lines(f"{path}[{number}]", item)
    elif isinstance(value, str) and "\n" in value:
        yield f"{path}:"
        yield from (f"    {reveal(line)}" for line in value.split("\n"))
    else:
        yield f"{path}: {_quoted(value) if isinstance(value, str) else json.dumps(value)}"


def _quoted(text: str) -> str:
    return json.dumps(reveal(text), ensure_ascii=False)


def _subjects(
    environment: Environment,
    server: str,
    pinned: Mapping[str, Any],
    seen: Mapping[str, Mapping[str, dict[str, Any]]],
) -> Iterator[Subject]:
    names = sorted({*pinned, *(name for tools in seen.values() for name in tools)})
    for name in names:
        versions = {gateway: tools[name] for gateway, tools in seen.items() if name in tools}
        if len({digest(definition) for definition in versions.values()}) > 1:
            raise ReviewError("\n".join(_disagreement(environment, server, name, versions)))
        observed = next(iter(versions.values()), None)
        pin = pinned.get(name)
        yield Subject(
            server,
            name,
            _state(name in environment.servers[server].tools, pin, observed),
            pin,
            observed,
            tuple(versions) if 0 < len(versions) < len(seen) else (),
        )


def _state(named: bool, pin: Mapping[str, Any] | None, observed: Mapping[str, Any] | None) -> State:
    if not named:
        return "not in the manifest"
    if observed is None:
        return "not offered"
    if pin is None:
        return "new"
    return "approved" if pin["sha256"] == digest(observed) else "changed"


def _disagreement(
    environment: Environment, server: str, name: str, versions: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    (one, first), *others = versions.items()
    other, second = next((g, d) for g, d in others if digest(d) != digest(first))
    yield (
        f"{server}/{reveal(name)}: the server shows {one} and {other} different definitions. "
        "If it was being updated, fetch again; if not, it tells gateways apart: "
        "do not approve, find out why"
    )
    yield f"(fetch: {FETCH.format(environment.path)})"
    yield from difflib.unified_diff(
        described(first), described(second), one, other, n=2, lineterm=""
    )


def _observed(path: Path, server: str) -> dict[str, dict[str, Any]]:
    """Definitions of a server by name, as one gateway saw them."""
    document = _json(path)
    tools = document.get("tools")
    if document.get("version") != 1 or document.get("server") != server:
        raise ReviewError(f"{path}: not observations of {server}; fetch them again")
    if not isinstance(tools, list) or not all(
        isinstance(tool, dict) and isinstance(tool.get("name"), str) for tool in tools
    ):
        raise ReviewError(f"{path}: tools: there is one without a name; ask who runs {server}")
    found: dict[str, dict[str, Any]] = {}
    for tool in tools:
        if tool["name"] in found:
            raise ReviewError(
                f"{path}: {server} offers {reveal(tool['name'])} twice; which one a call reaches "
                "is unknown, so neither can be approved"
            )
        found[tool["name"]] = definition_of(tool)
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ReviewError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ReviewError(f"{path}: not an object; fetch or approve it again")
    return document


def arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in {
        "diff": "show what differs from what was approved; exit status 1 where something waits",
        "approve": "show what differs, and pin it",
        "list": "show every tool, and whether it is approved",
    }.items():
        action = actions.add_parser(name, help=summary, description=summary)
        action.add_argument("server", nargs="?", metavar="SERVER", help="(default: every server)")
        action.add_argument(
            "--environment", type=Path, default=Path("inventories/lab/environment.yaml")
        )
        action.add_argument(
            "--observed",
            type=Path,
            metavar="DIR",
            help="what playbooks/pins.yml fetched (default: .state/observed beside the manifest)",
        )
        if name == "approve":
            action.add_argument(
                "--tool", action="append", metavar="NAME", help="only this one (may be repeated)"
            )
            action.add_argument("--yes", action="store_true", help="do not ask")
            action.add_argument(
                "--accept-hidden",
                action="store_true",
                help="approve hidden characters as well, such as joiners of a script",
            )
            action.add_argument(
                "--by", default=None, metavar="NAME", help="who approves (default: who you are)"
            )


def run(args: Namespace) -> int:
    """0: nothing waits for approval; 1: something does; 2: it cannot be reviewed."""
    environment = Environment.load(args.environment)
    try:
        subjects = review(environment, args.observed or environment.state / "observed", args.server)
        if args.action == "approve":
            return _approve(environment, subjects, args)
        if args.action == "list":
            return _list(subjects)
        waiting = [s for tools in subjects.values() for s in tools if s.waits]
        for subject in waiting:
            _show(subject)
        _remark(subjects)
        return 1 if waiting else 0
    except (ReviewError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def _list(subjects: Mapping[str, list[Subject]]) -> int:
    rows = [s for tools in subjects.values() for s in tools]
    width = max((len(f"{s.server}/{reveal(s.name)}") for s in rows), default=0)
    for subject in rows:
        approved = (subject.pin or {}).get("approved", {})
        by = f"  {approved.get('by')}, {approved.get('at')}" if approved else ""
        seen = f"  (seen by {', '.join(subject.seen_by)} only)" if subject.seen_by else ""
        title = f"{subject.server}/{reveal(subject.name)}"
        print(f"{title:{width}}  {subject.state}{reveal(by)}{seen}")
    return 1 if any(subject.waits for subject in rows) else 0


def _show(subject: Subject) -> None:
    print("\n".join(difference(subject)))
    if subject.seen_by:
        print(f"! seen by {', '.join(subject.seen_by)} only")
    if subject.observed is not None:
        for objection in objections(subject.observed):
            print(f"! {objection}")
    print()


def _remark(subjects: Mapping[str, list[Subject]]) -> None:
    for state, remark in {
        "not in the manifest": "offered, but the manifest does not name it: no caller sees it",
        "not offered": "approved, but not offered any more",
    }.items():
        for subject in (s for tools in subjects.values() for s in tools if s.state == state):
            if subject.observed is not None or subject.pin is not None:
                print(f"{subject.server}/{reveal(subject.name)}: {remark}", file=sys.stderr)


def _approve(
    environment: Environment, subjects: Mapping[str, list[Subject]], args: Namespace
) -> int:
    waiting = [s for tools in subjects.values() for s in tools if s.waits]
    asked = [s for s in waiting if args.tool is None or s.name in args.tool]
    for name in sorted(set(args.tool or ()) - {s.name for s in asked}):
        raise ReviewError(f"{reveal(name)} does not wait for approval; see: ringfence pins list")
    if asked and not args.yes and not sys.stdin.isatty():
        raise ReviewError("there is nobody to ask: approve in a terminal, or with --yes")
    approved: dict[str, list[Subject]] = {}
    for subject in asked:
        _show(subject)
        assert subject.observed is not None
        if objections(subject.observed, accept_hidden=args.accept_hidden):
            print(f"{subject.server}/{reveal(subject.name)}: not approved", file=sys.stderr)
        elif args.yes or _confirmed(subject):
            approved.setdefault(subject.server, []).append(subject)
    by, at = args.by or getpass.getuser(), datetime.now(UTC)
    for tools in approved.values():
        path = approve(environment, tools, by=by, at=at, accept_hidden=args.accept_hidden)
        print(f"{path}: approved {', '.join(reveal(s.name) for s in tools)}")
    if approved:
        print(
            "Commit it; in force after: "
            f"ansible-playbook -i {environment.path} playbooks/harden.yml --tags mcp_gateway"
        )
    return 1 if len(waiting) > sum(map(len, approved.values())) else 0


def _confirmed(subject: Subject) -> bool:
    try:
        answer = input(f"Approve {subject.server}/{reveal(subject.name)}? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in {"y", "yes"}
