"""Calls that the gateway allows, and how it changes the answers (IAM, DAT, MON, TIN).

Asked of its processes on the host; nothing here calls a tool that changes something, and where a
refusal is expected the arguments are none that a tool would take.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ringfence.gateway.pins import definitions as definitions
from ringfence.manifest.model import Environment, Principal, Server
from ringfence.operator.pins import ReviewError, read_pins
from ringfence.report import not_applicable
from ringfence.verify import gateway
from ringfence.verify.gateway import ProbeAnswer, ProbeClient, message, request
from ringfence.verify.targets import Target, Targets

REMEDY = "apply role mcp_gateway"
DENIED, NO_GRANT = -32003, -32008

CURRENT = "/etc/ringfence/gateway/current"
CODE = "/usr/local/lib/ringfence-gateway/current/ringfence/gateway"
PYTHON = (
    f"PYTHONPATH={CODE}/../.. PYTHONDONTWRITEBYTECODE=1 "
    "$(ls -d /opt/ringfence/gateway/gateway/*/bin/python | head -n 1) -s -P"
)
"""The Python that runs the gateway, with its code."""
UNITS = "'*-gateway@*.service'"
RELOAD = f"systemctl reload {UNITS} && sleep 1"
RESTART = f"systemctl restart {UNITS}"
EVERYBODY = "permit (principal, action, resource);"

SECRET = "AKIA" + "Q3EGR7VJZ5TLMX2B"
PEOPLE = ("ada.probe@example.org", "grace.probe@example.org")

ECHOES = {
    "mcp-server-sqlite": ("read_query", lambda text: {"query": f"SELECT '{text}' AS probe"}),
    "mcp-server-time": ("get_current_time", lambda text: {"timezone": text}),
}
"""Tool by package, without effects and repeating its input, and its arguments."""


def sabotage_configuration(change: str, take: str = RELOAD) -> pytest.MarkDecorator:
    """Return a sabotage that edits gateway.json by a line of Python over `document`."""
    program = (
        "import json; from pathlib import Path; "
        f'file = Path("{CURRENT}/gateway.json"); document = json.loads(file.read_text()); '
        f"{change}; file.write_text(json.dumps(document))"
    )
    return pytest.mark.sabotage(
        f"cp -p {CURRENT}/gateway.json /root/.sabotage && python3 -c '{program}' && {take}",
        restore=f"cp -p /root/.sabotage {CURRENT}/gateway.json && rm /root/.sabotage && {take}",
    )


def sabotage_code(file: str, expression: str) -> pytest.MarkDecorator:
    """Return a sabotage that edits the code of the gateway."""
    return pytest.mark.sabotage(
        f"cp -p {CODE}/{file} /root/.sabotage && sed -i '{expression}' {CODE}/{file} && "
        f"! cmp -s {CODE}/{file} /root/.sabotage && {RESTART}",
        restore=f"mv /root/.sabotage {CODE}/{file} && {RESTART}",
    )


permit_everything = pytest.mark.sabotage(
    f"printf '@id(\"sabotage\")\\n{EVERYBODY}\\n' > {CURRENT}/policies/sabotage.cedar && "
    f"chmod 0644 {CURRENT}/policies/sabotage.cedar && {RELOAD}",
    restore=f"rm {CURRENT}/policies/sabotage.cedar && {RELOAD}",
)


def listing(environment: Environment) -> tuple[Principal, Server]:
    """Return a principal and a server whose tools they may list, for a request to be allowed."""
    for principal, server, _ in gateway.listings(environment):
        return principal, server
    return not_applicable("no role of a principal names a tool")


def shown(answer: ProbeAnswer) -> set[str]:
    return {tool["name"] for tool in answer.document.get("result", {}).get("tools", [])}


def summary(answer: ProbeAnswer) -> str:
    return f"{answer.status} {answer.document.get('error', {}).get('message', '')}".strip()


# --- authorisation -----------------------------------------------------------------------------


@pytest.mark.control("IAM-01")
@pytest.mark.hosts("edge")
@permit_everything
def test_tool_of_no_role_is_refused(host: Target, environment: Environment) -> None:
    """If an agent reaches every tool, one injected instruction can do anything."""
    cases = list(gateway.withheld(environment))
    if not cases:
        not_applicable("every principal's roles name every tool")
    answers = ProbeClient(environment, host).send(
        *(request(p, s, message("tools/call", name=t.name, arguments={})) for p, s, t in cases)
    )
    through = [
        f"{principal.name} calls {server.name}/{tool.name}: {summary(answer)}"
        for (principal, server, tool), answer in zip(cases, answers, strict=True)
        if (answer.status, answer.code) != (403, DENIED)
    ]
    assert not through, f"the gateway does not deny: {'; '.join(through[:5])}; {REMEDY}"


@pytest.mark.control("IAM-01")
@pytest.mark.hosts("edge")
@permit_everything
def test_list_shows_what_roles_name(host: Target, environment: Environment) -> None:
    """A model tries tools that are listed, and does not know others."""
    cases = list(gateway.listings(environment))
    if not cases:
        not_applicable("no role of a principal names a tool")
    answers = ProbeClient(environment, host).send(
        *(request(principal, server, message("tools/list")) for principal, server, _ in cases)
    )
    wrong = [
        f"{principal.name} at {server.name}: {summary(answer)}, "
        f"without {sorted(names - shown(answer))}, beside {sorted(shown(answer) - names)}"
        for (principal, server, names), answer in zip(cases, answers, strict=True)
        if shown(answer) != names
    ]
    assert not wrong, (
        f"lists of tools differ from the roles: {'; '.join(wrong[:5])}; {REMEDY}, "
        "and see what is withheld: ringfence pins list"
    )


@pytest.mark.control("IAM-02")
@pytest.mark.hosts("edge")
@sabotage_configuration('document["tokens"]["ceiling_seconds"] = 3600')
def test_token_that_lives_long_is_refused(host: Target, environment: Environment) -> None:
    """A stolen token works for its remaining lifetime."""
    principal, server = listing(environment)
    caller = ProbeClient(environment, host)
    ceiling = caller.gateway.tokens.lifetime_minutes * 60
    short, long = caller.send(
        *(
            request(
                principal,
                server,
                message("tools/list"),
                token=caller.token(principal, server, seconds=seconds),
            )
            for seconds in (ceiling, ceiling + 60)
        )
    )
    assert short.status == 200, (
        f"the gateway answers a token of {ceiling} s with {summary(short)}; {REMEDY}"
    )
    assert long.status == 401, (
        f"the gateway answers a token of {ceiling + 60} s with {summary(long)}; {REMEDY}"
    )


@pytest.mark.control("IAM-02")
@pytest.mark.hosts("edge")
@sabotage_code(
    "tokens/access_tokens.py",
    's/if claims.get("aud") not in (audience, \\[audience\\]):/if False:/',
)
def test_token_for_another_server_is_refused(host: Target, environment: Environment) -> None:
    """A server that receives a token could use it elsewhere as the caller."""
    principal, server = listing(environment)
    others = [each for each in gateway.modern(environment) if each != server]
    if not others:
        not_applicable("the environment has one server only")
    caller = ProbeClient(environment, host)
    elsewhere = replace(others[0], name=f"{server.name}-elsewhere")
    good, bad = caller.send(
        request(principal, server, message("tools/list")),
        request(
            principal,
            server,
            message("tools/list"),
            token=caller.token(principal, server, audience=elsewhere),
        ),
    )
    assert good.status == 200, f"the gateway answers a valid token with {summary(good)}; {REMEDY}"
    assert bad.status == 401, (
        f"the gateway answers a token for {elsewhere.name} with {summary(bad)}; {REMEDY}"
    )


@pytest.mark.control("IAM-02")
@pytest.mark.hosts("edge")
@sabotage_configuration('document["tokens"]["sender_constraint"] = "none"')
def test_token_without_its_certificate_is_refused(host: Target, environment: Environment) -> None:
    """A token stolen from a log or from memory must not work without its certificate."""
    principal, server = listing(environment)
    caller = ProbeClient(environment, host)
    if caller.gateway.tokens.sender_constraint != "certificate":
        not_applicable("the manifest binds tokens to no certificate")
    (answer,) = caller.send(
        request(
            principal,
            server,
            message("tools/list"),
            token=caller.token(principal, server, bound=False),
        )
    )
    assert answer.status == 401, (
        f"the gateway answers an unbound token with {summary(answer)}; {REMEDY}"
    )


@pytest.mark.control("IAM-02")
@pytest.mark.hosts("edge")
@pytest.mark.sabotage(
    f"cp -p {CURRENT}/embedded.jwks.json /root/.sabotage && "
    f'sed -i \'s/"kid": *"/&stale-/g\' {CURRENT}/embedded.jwks.json && {RELOAD}',
    restore=f"mv /root/.sabotage {CURRENT}/embedded.jwks.json && {RELOAD}",
)
def test_key_that_signs_now_is_known(host: Target, environment: Environment) -> None:
    """If gateways miss a rotation of keys, every call fails."""
    principal, server = listing(environment)
    (answer,) = ProbeClient(environment, host).send(
        request(principal, server, message("tools/list"))
    )
    assert answer.status == 200, (
        f"the gateway answers a token of the current key with {summary(answer)}; {REMEDY}"
    )


@pytest.mark.control("IAM-03")
@pytest.mark.hosts("edge")
@sabotage_configuration(
    '[tool.update(sensitive=False, approvers=[]) for server in document["servers"].values() '
    'for tool in server["tools"].values()]'
)
def test_sensitive_tool_needs_a_grant(host: Target, environment: Environment) -> None:
    """An attacker can use a standing privilege at any hour, a grant only for minutes."""
    cases = list(gateway.sensitive(environment))
    if not cases:
        not_applicable("no role names a sensitive tool")
    answers = ProbeClient(environment, host).send(
        *(request(p, s, message("tools/call", name=t.name, arguments={})) for p, s, t in cases)
    )
    through = [
        f"{principal.name} calls {server.name}/{tool.name}: {summary(answer)}"
        for (principal, server, tool), answer in zip(cases, answers, strict=True)
        if (answer.status, answer.code) != (403, NO_GRANT)
    ]
    assert not through, (
        f"the gateway does not deny without a grant: {'; '.join(through[:5])}; {REMEDY}"
    )


# --- results ------------------------------------------------------------------------------


def echoed(host: Target, environment: Environment, *texts: str, strict: bool) -> list[str]:
    """Return texts as a tool's answer has them. `strict`: of a class that acts on findings."""
    caller = ProbeClient(environment, host)
    for principal, server, names in gateway.listings(environment):
        tool, arguments = ECHOES.get(server.package.name, ("", dict))
        if tool not in names:
            continue
        if strict and caller.gateway.inspection[server.tools[tool].data_class] == "flag":
            continue
        answers = caller.send(
            *(
                request(
                    principal, server, message("tools/call", name=tool, arguments=arguments(text))
                )
                for text in texts
            )
        )
        assert all(answer.status == 200 for answer in answers), (
            f"{server.name}/{tool} answers {', '.join(map(summary, answers))}; {REMEDY}"
        )
        return [json.dumps(answer.document.get("result")) for answer in answers]
    return not_applicable("no tool that may be called here repeats its input")


@pytest.mark.control("DAT-01")
@pytest.mark.hosts("edge")
@sabotage_configuration(
    '[tool.update(data_class="public" if tool["data_class"] != "public" else "internal") '
    'for server in document["servers"].values() for tool in server["tools"].values()]'
)
def test_class_of_a_tool_is_that_of_the_manifest(
    host: Target, environment: Environment, targets: Targets
) -> None:
    """The data class decides what is masked, and how long events are kept."""
    for principal, server, tool in gateway.withheld(environment):
        document = message("tools/call", name=tool.name, arguments={})
        (answer,) = ProbeClient(environment, host).send(request(principal, server, document))
        event = recorded(targets, environment, host, answer)
        labels = [label for each in event.get("resources", []) for label in each.get("labels", [])]
        assert f"data_class:{tool.data_class}" in labels, (
            f"the event about {server.name}/{tool.name} has {labels}, not data class "
            f"{tool.data_class}; {REMEDY}"
        )
        return
    not_applicable("every principal's roles name every tool, so no call would be without effect")


@pytest.mark.control("DAT-04")
@pytest.mark.hosts("edge")
@sabotage_configuration(
    'document["stage"] = "production"; document["inspection"].update(mask=False, '
    'classes=dict.fromkeys(document["inspection"]["classes"], "flag"))'
)
def test_secret_in_a_result_is_withheld(host: Target, environment: Environment) -> None:
    """A tool's result enters a model's context and may leave with its next answer."""
    (text,) = echoed(host, environment, SECRET, strict=True)
    assert SECRET not in text, f"the gateway passes on an access key in a result; {REMEDY}"


@pytest.mark.control("DAT-05")
@pytest.mark.hosts("edge")
@sabotage_configuration('document["stage"] = "production"; document["inspection"]["mask"] = False')
def test_personal_data_is_masked_consistently(host: Target, environment: Environment) -> None:
    """Test environments have more readers; masks keep copies of real data usable."""
    if environment.stage == "production":
        not_applicable("production data is not masked")
    first, other = PEOPLE
    once, again, another = echoed(host, environment, first, first, other, strict=False)
    plain = [address for address in PEOPLE if address in once + again + another]
    assert not plain, f"the gateway passes on an e-mail address in a result; {REMEDY}"
    assert once == again, f"the gateway masks one address in two ways; {REMEDY}"
    assert once != another, f"the gateway removes addresses and does not mask them; {REMEDY}"


# --- audit -----------------------------------------------------------------------------

FIND = """
for try in $(seq 40); do
  for file in /var/log/ringfence/$host/*.jsonl; do :; done
  tail -n 20000 "$file" 2>/dev/null | grep -F -e "$text" | grep -F ringfence-audit | tail -n 1 |
    grep . && exit
  test -d /var/log/ringfence || exit
  sleep 0.2
done
"""


def recorded(
    targets: Targets, environment: Environment, host: Target, answer: ProbeAnswer
) -> dict[str, Any]:
    """Return the gateway's event about a request from the collector's record."""
    collector = environment.log_sink.host
    if collector is None:
        not_applicable("the log sink is not a host of this environment; look there")
    setup = f"host='{host.manifest.name}'; text='{answer.request_id}'"
    found = targets[collector].run("sh -c %s", f"{setup}\n{FIND}").stdout
    assert found, f"the collector has no event about a request answered {summary(answer)}; {REMEDY}"
    return json.loads(json.loads(found)["message"])


@pytest.mark.control("MON-01")
@pytest.mark.hosts("edge")
# The gateway reads the directory of its log at its start only.
@sabotage_configuration('document["audit"]["journal"] = False', RESTART)
def test_decisions_say_who_what_and_why(
    host: Target, environment: Environment, targets: Targets
) -> None:
    """An unrecorded call cannot be investigated."""
    cases = list(gateway.withheld(environment))
    if not cases:
        not_applicable("every principal's roles name every tool")
    principal, server, tool = cases[0]
    document = message("tools/call", name=tool.name, arguments={"probe": PEOPLE[0]})
    (answer,) = ProbeClient(environment, host).send(request(principal, server, document))
    event = recorded(targets, environment, host, answer)
    text = json.dumps(event)
    told = {
        "who": event.get("actor", {}).get("user", {}).get("name") == principal.name,
        "what": any(each.get("name") == tool.name for each in event.get("resources", [])),
        "where": event.get("api", {}).get("service", {}).get("name") == server.name,
        "when": isinstance(event.get("time"), int),
        "the outcome": event.get("status") == "Failure",
        "the chain": "chain" in event.get("unmapped", {}),
    }
    missing = [what for what, is_told in told.items() if not is_told]
    assert not missing, f"the event lacks {', '.join(missing)}; {REMEDY}"
    assert PEOPLE[0] not in text, f"the event contains an argument as it was sent; {REMEDY}"


@pytest.mark.control("MON-01")
@pytest.mark.hosts("edge")
@pytest.mark.sabotage(
    # In place, since the process continues to write to the same file.
    "cd /var/log/ringfence-gateway && python3 -c 'import glob; "
    'path = sorted(glob.glob("*.jsonl"))[0]; file = open(path, "r+b"); '
    'at = file.read().index(b"severity_id\\":1"); file.seek(at); file.write(b"severity_id\\":2"); '
    'open("/root/.sabotage", "w").write(f"{path} {at}")\'',
    restore="cd /var/log/ringfence-gateway && python3 -c 'path, at = "
    'open("/root/.sabotage").read().split(); file = open(path, "r+b"); file.seek(int(at)); '
    'file.write(b"severity_id\\":1")\' && rm /root/.sabotage',
)
def test_record_of_decisions_is_whole(host: Target) -> None:
    """A log that can be altered unnoticed is no evidence."""
    script = f"{PYTHON} -m ringfence.gateway.audit verify /var/log/ringfence-gateway/*.jsonl"
    found = host.run("sh -c %s", script)
    assert found.succeeded, (
        f"the audit log was altered: {(found.stdout + found.stderr).strip()[-300:]}; "
        "compare it with the collector's copy"
    )


# --- integrity ------------------------------------------------------------------------------


@pytest.mark.control("TIN-01")
@pytest.mark.hosts("edge")
@pytest.mark.sabotage(
    # As if a server had changed its definitions after they were approved.
    f"cd {CURRENT}/pins && file=$(ls *.json | head -n 1) && cp -p $file /root/.sabotage.$file && "
    f"{PYTHON} -c 'import json, sys; from pathlib import Path; "
    "from ringfence.gateway.pins.definitions import digest; "
    "file = Path(sys.argv[1]); document = json.loads(file.read_text()); "
    '[pin["definition"].update(description="approved before") or '
    'pin.update(sha256=digest(pin["definition"])) for pin in document["tools"].values()]; '
    f"file.write_text(json.dumps(document))' $file && {RELOAD}",
    restore=f"cd {CURRENT}/pins && for file in /root/.sabotage.*; do "
    f"mv $file ${{file#/root/.sabotage.}}; done && {RELOAD}",
)
def test_definitions_are_the_approved_ones(host: Target, environment: Environment) -> None:
    """A description is an instruction to the model, and a server may change it after approval."""
    cases = list(gateway.listings(environment))
    if not cases:
        not_applicable("no role of a principal names a tool")
    answers = ProbeClient(environment, host).send(
        *(request(principal, server, message("tools/list")) for principal, server, _ in cases)
    )
    wrong: set[str] = set()
    for (_, server, names), answer in zip(cases, answers, strict=True):
        try:
            approved = read_pins(environment, server.name)["tools"]
        except ReviewError as error:
            pytest.fail(str(error), pytrace=False)
        listed = answer.document.get("result", {}).get("tools", [])
        wrong |= {f"{server.name}/{name} is withheld" for name in names - shown(answer)}
        wrong |= {
            f"{server.name}/{tool['name']} differs from its pin"
            for tool in listed
            if approved.get(tool["name"], {}).get("sha256") != definitions.digest(tool)
        }
    assert not wrong, f"{'; '.join(sorted(wrong)[:5])}; see ringfence pins diff"


@pytest.mark.control("TIN-03")
@pytest.mark.hosts("edge")
@sabotage_configuration('document["origins"] = ["https://evil.example"]')
def test_request_that_breaks_the_protocol_is_refused(
    host: Target, environment: Environment
) -> None:
    """If two parsers disagree, a request may be authorised as one thing and run as another."""
    principal, server = listing(environment)
    document = message("tools/list")
    good = request(principal, server, document)
    body = good.body.decode()
    named = message("tools/call", name="one", arguments={})
    cases = {
        "a page of another site": (
            request(principal, server, document, origin="https://evil.example"),
            403,
        ),
        "a member twice": (
            replace(good, body=body.replace('"id":', '"method": "ping", "id":', 1).encode()),
            400,
        ),
        "a member in another case": (
            replace(good, body=body.replace('"id":', '"Method": "ping", "id":', 1).encode()),
            400,
        ),
        "a batch": (replace(good, body=f"[{body}]".encode()), 400),
        "trailing data": (replace(good, body=f"{body} {body}".encode()), 400),
        "another method in the header": (
            request(principal, server, document, mcp_method="ping"),
            400,
        ),
        "another tool in the header": (request(principal, server, named, mcp_name="two"), 400),
        "a version that is none": (
            request(principal, server, document, mcp_protocol_version="1999-01-01"),
            400,
        ),
        "a method that is none": (request(principal, server, message("tools/destroy")), 404),
        "a token in the address": (replace(good, query="?access_token=x"), 400),
    }
    answers = ProbeClient(environment, host).send(good, *(each for each, _ in cases.values()))
    assert answers[0].status == 200, (
        f"the gateway answers a valid request with {summary(answers[0])}; {REMEDY}"
    )
    through = [
        f"the gateway answers {what} with {summary(answer)}"
        for (what, (_, status)), answer in zip(cases.items(), answers[1:], strict=True)
        if answer.status != status
    ]
    assert not through, f"{'; '.join(through)}; {REMEDY}"
