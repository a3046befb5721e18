"""Cedar policies of the gateway, from the roles of the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ringfence.manifest.model import Environment, Role

# Types of the gateway's schema by the attribute of a role that names them.
NAMED = {"tools": "Tool", "resources": "Resource", "prompts": "Prompt"}

ALTERNATIVE = " ||\n"

HEADER = """\
// Who may use what, from the roles in {source}. Do not edit: another file beside
// this one can hold policies of your own.
//
// What no policy permits is denied. A sensitive tool needs a grant too.
"""


def policies(environment: Environment) -> str:
    """Return a policy for each role and each server that it names, with `@id("ROLE/SERVER")`.

    The order depends only on names, so the same roles give the same bytes.
    """
    roles = (role for _, role in sorted(environment.roles.items()))
    rules = (rule for role in roles for rule in _role(role))
    return "\n".join((HEADER.format(source=environment.path.name), *rules))


def _role(role: Role) -> Iterator[str]:
    named: dict[str, Mapping[str, Iterable[str]]] = {
        kind: getattr(role, attribute, {}) for attribute, kind in NAMED.items()
    }
    servers = {s for by_server in named.values() for s, names in by_server.items() if names}
    for server in sorted(servers):
        conditions = [f"    resource == {_entity('Server', server)}"] + [
            f"    resource in [\n{_list(kind, server, by_server[server])}    ]"
            for kind, by_server in named.items()
            if by_server.get(server)
        ]
        yield (
            # A description is one line to a reader, whatever ends a line for Cedar.
            f"// {role.name}: {' '.join(role.description.split())}\n"
            f"@id({_string(f'{role.name}/{server}')})\n"
            "permit (\n"
            f"    principal in {_entity('Role', role.name)},\n"
            f"    action in [{_entity('Action', 'use')}, {_entity('Action', 'connect')}],\n"
            "    resource\n"
            ") when {\n"
            f"{ALTERNATIVE.join(conditions)}\n"
            "};\n"
        )


def _list(kind: str, server: str, names: Iterable[str]) -> str:
    return "".join(f"        {_entity(kind, f'{server}/{name}')},\n" for name in sorted(names))


def _entity(kind: str, name: str) -> str:
    return f"Ringfence::{kind}::{_string(name)}"


def _string(text: str) -> str:
    """Return a Cedar string literal, which its content cannot end."""
    return f'"{"".join(map(_character, text))}"'


def _character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if " " <= character <= "~" else f"\\u{{{ord(character):x}}}"
