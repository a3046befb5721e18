"""Pins: definitions of tools that an operator reviews and keeps in git beside the manifest.

Gateways write the definitions that servers offer to files; `playbooks/pins.yml` fetches them into
`.state/observed/<gateway>/<server>.json`. `ringfence pins diff` shows the differences from
`pins/<server>.json`, and `ringfence pins approve` writes there exactly what it showed.
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
from ringfence.gateway.pins.approved import Pins, PinsError
from ringfence.gateway.pins.definitions import FIELDS, definition_of, digest, faults, hidden
from ringfence.identity import state
from ringfence.manifest.model import Environment

State = Literal["approved", "new", "changed", "not offered", "not in the manifest"]

FETCH = "ansible-playbook -i {} playbooks/pins.yml"


class ReviewError(Exception):
    """The observed or approved definitions cannot be reviewed."""


@dataclass(frozen=True)
class Review:
    """One tool, as it was approved and as gateways observed it."""

    server: str
    name: str
    state: State
    pin: Mapping[str, Any] | None
    observed: Mapping[str, Any] | None
    observers: tuple[str, ...]
    """The gateways that observed it; empty if all did."""

    @property
    def is_pending(self) -> bool:
        return self.state in {"new", "changed"}


def directory_of(environment: Environment) -> Path:
    return environment.path.parent / "pins"


def review_tools(
    environment: Environment, observed: Path, server: str | None = None
) -> dict[str, list[Review]]:
    """Return all tools of the servers (or of one), by server. Raises `ReviewError`."""
    if server is not None and server not in environment.servers:
        known = ", ".join(environment.servers)
        raise ReviewError(f"{environment.path} names no server {reveal(server)!r}; it has: {known}")
    gateways = sorted(path for path in observed.glob("*") if path.is_dir())
    reviews: dict[str, list[Review]] = {}
    for name in [server] if server is not None else environment.servers:
        pinned = read_pins(environment, name)["tools"]
        observations = {
            gateway.name: _observed(path, name)
            for gateway in gateways
            if (path := gateway / f"{name}.json").exists()
        }
        if observations or pinned:
            reviews[name] = list(_reviews(environment, name, pinned, observations))
    if not any(path.exists() for path in observed.glob(f"*/{server or '*'}.json")):
        raise ReviewError(
            f"{observed}: the definitions that gateways observed have not been fetched yet; "
            f"run: {FETCH.format(environment.path)}"
        )
    return reviews


def read_pins(environment: Environment, server: str) -> dict[str, Any]:
    """Return `pins/<server>.json`, or an empty document. Raises `ReviewError`."""
    path = directory_of(environment) / f"{server}.json"
    if not path.exists():
        return {"version": 1, "server": server, "tools": {}}
    document = _json(path)
    try:
        Pins(server, document)
    except PinsError as error:
        raise ReviewError(f"{directory_of(environment).parent}: {error}") from error
    return document


def approve(
    environment: Environment,
    reviews: Sequence[Review],
    *,
    by: str,
    at: datetime,
    accept_hidden: bool = False,
) -> Path:
    """Pin the observed definitions of these tools, which are all of one server.

    Raises `ReviewError` for a definition that the gateway would withhold even so.
    """
    (server,) = {review.server for review in reviews}
    document = read_pins(environment, server)
    tools = document["tools"]
    for review in reviews:
        definition = review.observed
        assert definition is not None
        if found := objections(definition, accept_hidden=accept_hidden):
            raise ReviewError(f"{server}/{reveal(review.name)}: {'; '.join(found)}")
        tools[review.name] = {
            "sha256": digest(definition),
            "approved": {"by": by, "at": at.strftime("%Y-%m-%dT%H:%M:%SZ")},
            "accepted": bool(hidden(definition)),
            "definition": dict(definition),
        }
    document["tools"] = dict(sorted(tools.items()))
    path = directory_of(environment) / f"{server}.json"
    path.parent.mkdir(exist_ok=True)
    # ASCII: a reviewer of the file sees hidden characters as escapes.
    text = json.dumps(document, indent=2, ensure_ascii=True) + "\n"
    state.write(path, text.encode(), state.PUBLIC)
    return path


def objections(definition: Mapping[str, Any], *, accept_hidden: bool = False) -> list[str]:
    """Return why a definition must not be approved."""
    found = [f"cannot be approved: {fault.detail}" for fault in faults(definition)]
    if (kinds := hidden(definition)) and not accept_hidden:
        found.append(
            f"has hidden characters ({', '.join(kinds)}); if they belong there: --accept-hidden"
        )
    return found


def difference(review: Review) -> Iterator[str]:
    """Yield lines for a terminal, as `diff -u` does, with hidden characters written out."""
    before = lines_of(review.pin["definition"]) if review.pin else []
    after = lines_of(review.observed) if review.observed else []
    title = f"{review.server}/{reveal(review.name)}"
    approved = (review.pin or {}).get("approved", {})
    when = f"approved by {reveal(str(approved.get('by')))}, {reveal(str(approved.get('at')))}"
    yield from difflib.unified_diff(
        before,
        after,
        f"{title}: {when if review.pin else 'never approved'}",
        f"{title}: observed",
        n=2,
        lineterm="",
    )


def lines_of(definition: Mapping[str, Any]) -> list[str]:
    """Return a definition as lines, one per value."""
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


def _reviews(
    environment: Environment,
    server: str,
    pinned: Mapping[str, Any],
    observations: Mapping[str, Mapping[str, dict[str, Any]]],
) -> Iterator[Review]:
    names = sorted({*pinned, *(name for tools in observations.values() for name in tools)})
    for name in names:
        versions = {
            gateway: tools[name] for gateway, tools in observations.items() if name in tools
        }
        if len({digest(definition) for definition in versions.values()}) > 1:
            raise ReviewError("\n".join(_disagreement(environment, server, name, versions)))
        observed = next(iter(versions.values()), None)
        pin = pinned.get(name)
        yield Review(
            server,
            name,
            _state(name in environment.servers[server].tools, pin, observed),
            pin,
            observed,
            tuple(versions) if 0 < len(versions) < len(observations) else (),
        )


def _state(
    in_manifest: bool, pin: Mapping[str, Any] | None, observed: Mapping[str, Any] | None
) -> State:
    if not in_manifest:
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
        f"{server}/{reveal(name)}: the server gives {one} and {other} different definitions. "
        "If it was being updated, fetch again; if not, it treats gateways differently: "
        "do not approve, find out why"
    )
    yield f"(fetch: {FETCH.format(environment.path)})"
    yield from difflib.unified_diff(lines_of(first), lines_of(second), one, other, n=2, lineterm="")


def _observed(path: Path, server: str) -> dict[str, dict[str, Any]]:
    """Return the definitions of a server by name, as one gateway observed them."""
    document = _json(path)
    tools = document.get("tools")
    if document.get("version") != 1 or document.get("server") != server:
        raise ReviewError(f"{path} has no observations of {server}; fetch them again")
    if not isinstance(tools, list) or not all(
        isinstance(tool, dict) and isinstance(tool.get("name"), str) for tool in tools
    ):
        raise ReviewError(f"{path}: a tool has no name; ask the operator of {server}")
    found: dict[str, dict[str, Any]] = {}
    for tool in tools:
        if tool["name"] in found:
            raise ReviewError(
                f"{path}: {server} offers {reveal(tool['name'])} twice; a call may reach either, "
                "so neither can be approved"
            )
        found[tool["name"]] = definition_of(tool)
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ReviewError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ReviewError(f"{path} is not a JSON object; fetch or approve it again")
    return document


def arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, summary in {
        "diff": "show differences from the approved definitions; exit status 1 if there are any",
        "approve": "show the differences, and approve them",
        "list": "list all tools with their states",
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
            help="files that playbooks/pins.yml fetched (default: .state/observed)",
        )
        if name == "approve":
            action.add_argument(
                "--tool", action="append", metavar="NAME", help="only this one (may be repeated)"
            )
            action.add_argument("--yes", action="store_true", help="approve without asking")
            action.add_argument(
                "--accept-hidden",
                action="store_true",
                help="approve hidden characters as well, such as joiners of a script",
            )
            action.add_argument(
                "--by",
                default=None,
                metavar="NAME",
                help="the approving person (default: your login name)",
            )


def run(args: Namespace) -> int:
    """Exit status 0: nothing is pending; 1: something is; 2: it cannot be reviewed."""
    environment = Environment.load(args.environment)
    try:
        reviews = review_tools(
            environment, args.observed or environment.state / "observed", args.server
        )
        if args.action == "approve":
            return _approve(environment, reviews, args)
        if args.action == "list":
            return _list(reviews)
        pending = [s for tools in reviews.values() for s in tools if s.is_pending]
        for review in pending:
            _show(review)
        _remark(reviews)
        return 1 if pending else 0
    except (ReviewError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def _list(reviews: Mapping[str, list[Review]]) -> int:
    rows = [s for tools in reviews.values() for s in tools]
    width = max((len(f"{s.server}/{reveal(s.name)}") for s in rows), default=0)
    for review in rows:
        approved = (review.pin or {}).get("approved", {})
        by = f"  {approved.get('by')}, {approved.get('at')}" if approved else ""
        only = f"  (observed by {', '.join(review.observers)} only)" if review.observers else ""
        title = f"{review.server}/{reveal(review.name)}"
        print(f"{title:{width}}  {review.state}{reveal(by)}{only}")
    return 1 if any(review.is_pending for review in rows) else 0


def _show(review: Review) -> None:
    print("\n".join(difference(review)))
    if review.observers:
        print(f"! observed by {', '.join(review.observers)} only")
    if review.observed is not None:
        for objection in objections(review.observed):
            print(f"! {objection}")
    print()


def _remark(reviews: Mapping[str, list[Review]]) -> None:
    for found, remark in {
        "not in the manifest": "offered, but not in the manifest: no caller can see it",
        "not offered": "approved, but no longer offered",
    }.items():
        for review in (s for tools in reviews.values() for s in tools if s.state == found):
            if review.observed is not None or review.pin is not None:
                print(f"{review.server}/{reveal(review.name)}: {remark}", file=sys.stderr)


def _approve(environment: Environment, reviews: Mapping[str, list[Review]], args: Namespace) -> int:
    pending = [s for tools in reviews.values() for s in tools if s.is_pending]
    selected = [s for s in pending if args.tool is None or s.name in args.tool]
    for name in sorted(set(args.tool or ()) - {s.name for s in selected}):
        raise ReviewError(f"{reveal(name)} is not pending; see: ringfence pins list")
    if selected and not args.yes and not sys.stdin.isatty():
        raise ReviewError("approving needs a terminal; without one, use --yes")
    approved: dict[str, list[Review]] = {}
    for review in selected:
        _show(review)
        assert review.observed is not None
        if objections(review.observed, accept_hidden=args.accept_hidden):
            print(f"{review.server}/{reveal(review.name)}: not approved", file=sys.stderr)
        elif args.yes or _confirmed(review):
            approved.setdefault(review.server, []).append(review)
    by, at = args.by or getpass.getuser(), datetime.now(UTC)
    for tools in approved.values():
        path = approve(environment, tools, by=by, at=at, accept_hidden=args.accept_hidden)
        print(f"{path}: approved {', '.join(reveal(s.name) for s in tools)}")
    if approved:
        print(
            "Commit it, and apply it: "
            f"ansible-playbook -i {environment.path} playbooks/harden.yml --tags mcp_gateway"
        )
    return 1 if len(pending) > sum(map(len, approved.values())) else 0


def _confirmed(review: Review) -> bool:
    try:
        answer = input(f"Approve {review.server}/{reveal(review.name)}? [y/N] ")
    except EOFError:
        return False
    return answer.strip().lower() in {"y", "yes"}
