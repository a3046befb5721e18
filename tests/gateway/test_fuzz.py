"""Random requests to a running gateway, compared with a reference evaluation of the manifest.

Only what `reference_policy` allows to the owner of the token reaches a server; every well-formed
request that it allows does reach the server; and no request makes the gateway fail. The
configuration is derived from the manifest; the test's servers replace the manifest's.

A round has some thousand requests; `make fuzz` repeats it with others (FUZZ_MINUTES).
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jws

from benchmarks.gateway_site import MODERN, ROOT, Person, Site, make_site, mcp, pinned
from ringfence.inventory import mcp_gateway, policies
from ringfence.manifest.model import Environment
from tests.gateway.reference_policy import Reference
from tests.gateway.scripted import Handler, scripted

MANIFEST = ROOT / "inventories/lab/environment.yaml"
OLDER = "2025-11-25"
EXAMPLES = 2000
MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
CONTENT = {"content": [{"type": "text", "text": "said"}]}
RESULTS: Mapping[str, dict[str, Any]] = {
    "tools/call": CONTENT,
    "prompts/get": {"messages": [{"role": "user", "content": CONTENT["content"][0]}]},
    "resources/read": {"contents": [{"uri": "memo://insights", "text": "said"}]},
    "completion/complete": {"completion": {"values": ["said"]}},
    "resources/list": {"resources": [{"uri": "memo://insights", "name": "insights"}]},
    "resources/templates/list": {"resourceTemplates": []},
    "prompts/list": {"prompts": [{"name": "mcp-demo"}]},
    "server/discover": {"supportedVersions": [MODERN], "capabilities": {"tools": {}}},
    "initialize": {
        "protocolVersion": OLDER,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "upstream", "version": "1"},
    },
}
OWN_QUESTION = ("ringfence:gateway", "tools/list")
CACHEABLE = {"ttlMs": 0, "cacheScope": "public"}


def manifest() -> dict[str, Any]:
    """Return the lab's manifest with resource patterns, and with protocol versions that have
    sessions at one server."""
    document = yaml.safe_load(MANIFEST.read_text())
    document["name"] = "test"  # as in the certificates of the test's principals
    document["servers"]["sqlite"]["protocols"] = [MODERN, OLDER]
    document["servers"]["sqlite"]["resources"] |= {
        "file:///docs/*": {"data_class": "internal"},
        "file:///docs/secret-*": {"data_class": "restricted"},
        "file:///logs/**": {"data_class": "confidential"},
    }
    document["roles"]["analyst"]["resources"]["sqlite"] += ["file:///docs/*", "file:///logs/**"]
    return document


MANIFESTED = manifest()
SERVERS = MANIFESTED["servers"]
GRANTED = ("carol", "sqlite", "write_query")
REFERENCE = Reference(MANIFESTED, frozenset({GRANTED}))


@dataclass
class Stage:
    site: Site
    upstreams: Mapping[str, type[Handler]]
    sessions: dict[str, str] = field(default_factory=dict)
    """Principal by id of the server's own session."""
    sealed: dict[str, str] = field(default_factory=dict)
    """Sealed session id by principal, as the gateway issued it."""

    def arrived(self) -> list[tuple[str, dict[str, str], dict[str, Any]]]:
        """Return server, headers and document of each request that the gateway sent for the last
        one, except its own queries."""
        found = []
        for name, upstream in self.upstreams.items():
            found += [
                (name, headers, document)
                for headers, document in upstream.received
                if (headers["x-ringfence-principal"], document.get("method")) != OWN_QUESTION
            ]
            upstream.received.clear()
        return found


def answering(stage: Stage) -> Callable[[Handler, dict[str, Any]], None]:
    def answer(handler: Handler, document: dict[str, Any]) -> None:
        if "id" not in document:
            handler.raw(b"", "application/json", 202)
            return
        result = RESULTS.get(document["method"], {}) | CACHEABLE
        message = {"jsonrpc": "2.0", "id": document["id"]}
        body = json.dumps({**message, "result": {"resultType": "complete", **result}}).encode()
        handler.send_response(200)
        if document["method"] == "initialize":
            session = secrets.token_hex(8)
            stage.sessions[session] = handler.headers["x-ringfence-principal"]
            handler.send_header("mcp-session-id", session)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("fuzz")
    (directory / "environment.yaml").write_text(json.dumps(MANIFESTED))
    environment = Environment.load(directory / "environment.yaml")
    assert environment.gateway is not None
    host = environment.hosts["edge-1"]
    rendered = mcp_gateway.configuration(environment, environment.gateway, host)
    with ExitStack() as held:
        upstreams: dict[str, type[Handler]] = {}
        site = make_site(directory, {})
        site.document |= {key: rendered[key] for key in ("principals", "roles", "servers")}
        site.document["limits"] |= {"principal_calls_per_minute": 10**9}
        for name, server in site.document["servers"].items():
            port, upstreams[name] = held.enter_context(scripted())
            server |= {"url": f"http://127.0.0.1:{port}/mcp", "calls_per_minute": 10**9}
            del server["server_name"]
            tools = [
                {"name": tool, "description": tool, "inputSchema": {"type": "object"}}
                for tool in server["tools"]
            ]
            upstreams[name].tools[:] = tools
            (directory / f"pins/{name}.json").write_text(json.dumps(pinned(name, tools)))
        (directory / "policies/roles.cedar").write_text(policies.policies(environment))
        stage = Stage(site, upstreams)
        for upstream in upstreams.values():
            upstream.answer = answering(stage)
        site.start()
        held.callback(site.stop)
        grant(site)
        for who in MANIFESTED["principals"]:
            if REFERENCE.allows(who, "sqlite", "initialize", {}):
                stage.sealed[who] = begun(stage, who)
        stage.arrived()
        yield stage
        assert site.process is not None
        assert site.process.poll() is None, "the gateway has ended"
        site.stop()
        assert "Traceback" not in (directory / "stderr").read_text()
        recorded(site)


def grant(site: Site) -> None:
    """Create the grants of `GRANTED`."""
    who, server, tool = GRANTED
    now = int(time.time())
    wanted = {"nbf": now, "exp": now + 3600, "server": server, "tool": tool}
    identified = {"jti": secrets.token_hex(16), "reason": "requests at random"}
    with site.client() as client:
        request = site.person(who).signed("request", wanted | identified)
        asked = client.post("/grants", content=request).json()
        about = {"request_id": asked["id"], "request_digest": asked["request_digest"]}
        approval = site.person("dana").signed("approval", about)
        assert client.post("/grants", content=approval).status_code == 201


def begun(stage: Stage, who: str) -> str:
    params = {
        "protocolVersion": OLDER,
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    document = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
    headers = {"mcp-protocol-version": OLDER, "accept": "application/json, text/event-stream"}
    with stage.site.client() as client:
        person = Credential(who).headers(stage.site, "sqlite")
        answer = client.post("/sqlite/mcp", json=document, headers=headers | person)
    return answer.headers["mcp-session-id"]


def recorded(site: Site) -> None:
    """The log is complete and its chain is intact."""
    logs = sorted(Path(site.document["audit"]["directory"]).glob("*.jsonl"))
    verify = [sys.executable, "-m", "ringfence.gateway.audit", "verify", *logs]
    done = subprocess.run(verify, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# Callers


@dataclass(frozen=True)
class Credential:
    """Principal of a call, and the fault in its credentials; None for no fault."""

    who: str
    flaw: str | None = None

    def headers(self, site: Site, server: str) -> dict[str, str]:
        claims = {"aud": f"{site.document['resource']}/{server}/mcp", "scope": f"mcp:{server}"}
        person = site.person(self.who)
        token = FLAWS.get(self.flaw or "", valid)(site, person, claims)
        return {"authorization": f"Bearer {token}", **person.header()}


def valid(site: Site, person: Person, claims: dict[str, str]) -> str:
    return site.token(person.name, **claims)


def lacking(name: str) -> Callable[[Site, Person, dict[str, str]], str]:
    def token(site: Site, person: Person, claims: dict[str, str]) -> str:
        _, payload, _ = site.token(person.name, **claims).split(".")
        content = json.loads(base64.urlsafe_b64decode(payload + "=="))
        del content[name]
        return jws.serialize_compact(
            {"alg": "ES256", "typ": "at+jwt", "kid": "test"},
            json.dumps(content),
            site.key,
            ["ES256"],
        )

    return token


def claiming(**more: Any) -> Callable[[Site, Person, dict[str, str]], str]:
    return lambda site, person, claims: site.token(person.name, **{**claims, **more})


def unsigned(site: Site, person: Person, claims: dict[str, str]) -> str:
    _, payload, _ = site.token(person.name, **claims).split(".")
    header = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').decode().rstrip("=")
    return f"{header}.{payload}."


def of_another_content(site: Site, person: Person, claims: dict[str, str]) -> str:
    header, _, signature = site.token(person.name, **claims).split(".")
    other = site.token("dana" if person.name != "dana" else "carol", **claims).split(".")[1]
    return f"{header}.{other}.{signature}"


def of_another_person(site: Site, person: Person, claims: dict[str, str]) -> str:
    return site.token("build-agent" if person.name != "build-agent" else "carol", **claims)


FLAWS: Mapping[str, Callable[[Site, Person, dict[str, str]], str]] = {
    "audience": claiming(aud="https://gateway.test/other/mcp"),
    "issuer": claiming(iss="https://evil.test"),
    "scope": claiming(scope="mcp:other"),
    "expired": claiming(iat=1_700_000_000, exp=1_700_000_600),
    "ten years": claiming(exp=4_000_000_000),
    "unknown": claiming(sub="nobody"),
    "not bound": lacking("cnf"),
    "endless": lacking("exp"),
    "for nobody": lacking("aud"),
    "unsigned": unsigned,
    "content": of_another_content,
    "stolen": of_another_person,
    "no token": lambda *_: "AAAA.AAAA.AAAA",
}

people = st.sampled_from(sorted(MANIFESTED["principals"]))
flawless = people.map(Credential)
mostly_flawless = st.builds(Credential, people, st.sampled_from([*[None] * 50, *sorted(FLAWS)]))
flawed = st.builds(Credential, people, st.sampled_from(sorted(FLAWS)))

# Calls

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
integers = st.integers(-(2**53) + 1, 2**53 - 1)
doubles = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | integers | doubles | text
documents = st.recursive(
    scalars,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(text, each, max_size=3),
    max_leaves=8,
)
ids = integers | text
arguments = st.dictionaries(text, documents, max_size=3)
segments = st.from_regex(r"[a-z][a-z0-9-]{0,5}", fullmatch=True)
uris = st.one_of(
    st.just("memo://insights"),
    st.builds("file:///docs/{}".format, segments),
    st.builds("file:///docs/secret-{}".format, segments),
    st.builds("file:///docs/{}/{}".format, segments, segments),
    st.builds("file:///logs/{}".format, st.lists(segments, min_size=1, max_size=3).map("/".join)),
)


def called(kind: str) -> Callable[[str], st.SearchStrategy[dict[str, Any]]]:
    """Draw names of a server; seldom a name of another server, or an unknown one."""

    def of(server: str) -> st.SearchStrategy[dict[str, Any]]:
        own = sorted(SERVERS[server].get(kind, ()))
        names = st.sampled_from([*own * 3, "write_query", "git_log", "mcp-demo", "no-such-name"])
        return st.fixed_dictionaries({"name": names}, optional={"arguments": arguments})

    return of


references = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("ref/prompt"), "name": st.sampled_from(["mcp-demo", "other"])}
    ),
    st.fixed_dictionaries({"type": st.just("ref/resource"), "uri": uris}),
)
Params: TypeAlias = Callable[[str], st.SearchStrategy[dict[str, Any]]]
"""Parameters by server."""


def always(**params: st.SearchStrategy[Any]) -> Params:
    return lambda _: st.fixed_dictionaries(params)


listened = st.fixed_dictionaries(
    {},
    optional={
        "toolsListChanged": st.booleans(),
        "resourceSubscriptions": st.lists(uris, max_size=3),
    },
)
LISTS = ("tools/list", "resources/list", "resources/templates/list", "prompts/list")
COMMON: Mapping[str, Params] = {
    "tools/call": called("tools"),
    "prompts/get": called("prompts"),
    "resources/read": always(uri=uris),
    "completion/complete": always(
        ref=references, argument=st.fixed_dictionaries({"name": text, "value": text})
    ),
    **dict.fromkeys(LISTS, always()),
}
METHODS: Mapping[str, Mapping[str, Params]] = {
    MODERN: {
        **COMMON,
        "server/discover": always(),
        "subscriptions/listen": always(notifications=listened),
    },
    OLDER: {
        **COMMON,
        "ping": always(),
        "logging/setLevel": always(level=st.just("info")),
        "resources/subscribe": always(uri=uris),
        "resources/unsubscribe": always(uri=uris),
    },
}


@dataclass(frozen=True)
class Request:
    server: str
    version: str
    document: dict[str, Any]
    credential: Credential

    def headers(self, stage: Stage) -> list[tuple[bytes, bytes]]:
        headers = {
            "host": "gateway.test",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": self.version,
            **self.credential.headers(stage.site, self.server),
        }
        params = self.document["params"]
        if self.version == MODERN:
            headers["mcp-method"] = self.document["method"]
            if self.document["method"] in ("tools/call", "prompts/get", "resources/read"):
                headers["mcp-name"] = params.get("name") or params["uri"]
        elif (session := stage.sealed.get(self.credential.who)) is not None:
            headers["mcp-session-id"] = session
        return [(name.encode(), value.encode()) for name, value in headers.items()]

    def body(self) -> bytes:
        return json.dumps(self.document).encode()


@st.composite
def requests(draw: st.DrawFn, credentials: st.SearchStrategy[Credential] = flawless) -> Request:
    server = draw(st.sampled_from(sorted(SERVERS)))
    version = draw(st.sampled_from(SERVERS[server].get("protocols", [MODERN])))
    method = draw(st.sampled_from(sorted(METHODS[version])) | st.just("tools/call"))
    params = draw(METHODS[version][method](server))
    document = mcp(method, params, id=draw(ids))
    if version == OLDER:
        del document["params"]["_meta"]
    return Request(server, version, document, draw(credentials))


# Over the wire, byte by byte: a client library would refuse to send some of this


def sent(site: Site, message: bytes) -> tuple[int, bytes]:
    """Return status and body of the answer; status 0 if the gateway closes the connection without
    one."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(site.socket))
        with suppress(BrokenPipeError):  # the gateway refuses before all of it is sent
            connection.sendall(message)
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    if not received:
        return 0, b""
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def message(verb: bytes, path: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> bytes:
    framed = [*headers, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in framed)
    return verb + b" " + path + b" HTTP/1.1\r\n" + lines + b"\r\n" + body


def asked(stage: Stage, request: Request) -> tuple[int, bytes]:
    path = f"/{request.server}/mcp".encode()
    return sent(stage.site, message(b"POST", path, request.headers(stage), request.body()))


# Properties

ROUND = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rounds(check: Callable[[], None], seen: Counter[Any]) -> None:
    """Run one round, and more for `FUZZ_MINUTES`."""
    ends = time.monotonic() + 60 * MINUTES / 3
    check()
    while time.monotonic() < ends:
        check()
    print(f"\n{sum(seen.values())} requests: {dict(sorted(seen.items()))}")


def test_what_is_well_formed_is_decided_as_the_manifest_says(stage: Stage):
    seen: Counter[str] = Counter()

    @ROUND
    @given(requests())
    def check(request: Request) -> None:
        who, method = request.credential.who, request.document["method"]
        params = request.document["params"]
        status, body = asked(stage, request)
        arrived = stage.arrived()
        allowed = REFERENCE.allows(who, request.server, method, params)
        seen["allowed" if allowed else "denied"] += 1
        if not allowed:
            assert (status, arrived) == (403, []), body
            return
        assert status == 200, body
        [(server, headers, document)] = arrived
        assert (server, document) == (request.server, request.document)
        assert headers["x-ringfence-principal"] == who
        if method == "tools/list":
            listed = {tool["name"] for tool in json.loads(body)["result"]["tools"]}
            assert listed == REFERENCE.visible(who, server)

    rounds(check, seen)
    assert min(seen["allowed"], seen["denied"]) > EXAMPLES / 10, "one of the two was hardly tried"


def test_a_flaw_of_a_credential_is_enough(stage: Stage):
    seen: Counter[str] = Counter()

    @ROUND
    @given(requests(flawed))
    def check(request: Request) -> None:
        status, body = asked(stage, request)
        assert (status in (401, 403), stage.arrived()) == (True, []), body
        seen[str(request.credential.flaw)] += 1

    rounds(check, seen)
    assert seen.keys() == FLAWS.keys()


# Documents and headers

levels: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "envelope": lambda document: document,
    "params": lambda document: document["params"],
    "_meta": lambda document: document["params"].get("_meta"),
    "ref": lambda document: document["params"].get("ref"),
    "notifications": lambda document: document["params"].get("notifications"),
}
ENVELOPE = ("jsonrpc", "id", "method", "params")
PARAMS = ("name", "uri", "_meta", "arguments", "ref", "task")
members = st.sampled_from(ENVELOPE + PARAMS)


others = uris | st.sampled_from(["write_query", "git_log", "tools/list"])


def same(draw: st.DrawFn, request: Request) -> bytes:
    return request.body()


def another_document(draw: st.DrawFn, request: Request) -> bytes:
    document = deepcopy(request.document)
    for _ in range(draw(st.integers(1, 3))):
        level = levels[draw(st.sampled_from(sorted(levels)))](document)
        if not isinstance(level, dict):
            continue
        name = draw(members | st.sampled_from(sorted(level) or ["name"]) | text)
        change = draw(st.sampled_from(["put", "drop", "method"]))
        if change == "put":
            level[name] = draw(documents | others)
        elif change == "drop":
            level.pop(name, None)
        else:
            document["method"] = draw(st.sampled_from(EVERY_METHOD) | text)
        if not isinstance(document.get("params"), dict):
            break
    return json.dumps(document).encode()


def in_another_case(draw: st.DrawFn, request: Request) -> bytes:
    """Repeat a name of the document in another case."""
    document = deepcopy(request.document)
    level = draw(st.sampled_from([document["params"], document])) or document
    name = draw(st.sampled_from(sorted(level)))
    level[draw(st.sampled_from([name.upper(), name.title()]))] = draw(others)
    return json.dumps(document).encode()


def twice(draw: st.DrawFn, request: Request) -> bytes:
    """Repeat a name of the document, first or last."""
    body, name, value = request.body(), draw(members), draw(documents | others)
    member = f"{json.dumps(name)}: {json.dumps(value)}".encode()
    first = [each.end() for each in re.finditer(rb"{(?=\")", body)]
    at = draw(st.sampled_from([*first, len(body) - 1]))
    added = member + b", " if at in first else b", " + member
    return body[:at] + added + body[at:]


def other_bytes(draw: st.DrawFn, request: Request) -> bytes:
    body = request.body()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        kept = draw(st.integers(0, 2))
        body = body[:at] + draw(st.binary(max_size=2)) + body[at + kept :]
    return body


def any_json(draw: st.DrawFn, request: Request) -> bytes:
    return json.dumps(draw(documents)).encode()


def anything(draw: st.DrawFn, request: Request) -> bytes:
    return draw(st.binary(max_size=64))


# Hypothesis tries the first elements most often.
CHANGES = (another_document, in_another_case, twice, same, other_bytes, any_json, anything)


@st.composite
def bodies(draw: st.DrawFn, request: Request) -> bytes:
    return draw(st.sampled_from(CHANGES))(draw, request)


EVERY_METHOD = sorted(
    {name for each in METHODS.values() for name in each}
    | {"initialize", "notifications/initialized", "notifications/cancelled", "tasks/get"}
    | {"sampling/createMessage", "elicitation/create", "roots/list", "tasks/result"}
)
# Without headers that HAProxy deletes from clients' requests, because the gateway trusts them, and
# without headers that frame the message, because they belong to the parser.
header_names = st.sampled_from(
    [
        *(b"authorization", b"host", b"origin", b"accept", b"content-type", b"content-encoding"),
        *(b"mcp-method", b"mcp-name", b"mcp-protocol-version", b"mcp-session-id", b"mcp-param-x"),
        *(b"dpop", b"cookie", b"x-forwarded-for", b"last-event-id"),
    ]
) | st.from_regex(rb"x-[a-q]{1,8}", fullmatch=True)
header_values = st.binary(max_size=16).filter(lambda value: not set(value) & set(b"\r\n")) | (
    st.sampled_from(
        [
            *(b"*/*", b"application/json", b"gateway.test", b"https://allowed.test", b"null"),
            *(b"tools/call", b"2026-07-28", b"2025-11-25", b"write_query", b"gzip", b"Bearer x"),
        ]
    )
)


@st.composite
def headers_of(draw: st.DrawFn, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    changed = list(headers)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        how = draw(st.sampled_from(["drop", "repeat", "put", "add"]))
        name = draw(header_names)
        if how in ("drop", "put"):
            changed = [each for each in changed if each[0] != name]
        if how in ("put", "add"):
            changed.append((name, draw(header_values)))
        if how == "repeat":
            changed += [each for each in headers if each[0] == name]
    return changed


VERBS = [b"GET", b"DELETE", b"PUT", b"HEAD", b"OPTIONS", b"PATCH"]


@st.composite
def paths(draw: st.DrawFn, server: str) -> bytes:
    odd = st.sampled_from(
        [
            *("/", "//mcp", "/other/mcp", "/grants", "/{}/mcp/", "/{}//mcp", "/./{}/mcp"),
            *("/{}/mcp?access_token=x", "/%2e%2e/{}/mcp", "/{}/../git/mcp", "/{}/mcp;x"),
            "/.well-known/oauth-protected-resource/{}/mcp",
        ]
    )
    template = draw(st.sampled_from(["/{}/mcp"] * 9 + [""])) or draw(odd)
    return template.format(server).encode()


def test_whatever_comes_nothing_breaks_and_nothing_gets_past(stage: Stage):
    seen: Counter[int] = Counter()
    passed: Counter[int] = Counter()

    @ROUND
    @given(st.data(), requests(mostly_flawless))
    def check(data: st.DataObject, request: Request) -> None:
        verb = data.draw(st.sampled_from([b"POST"] * 9 + [b""])) or data.draw(
            st.sampled_from(VERBS)
        )
        path = data.draw(paths(request.server))
        headers = data.draw(headers_of(request.headers(stage)))
        whole = message(verb, path, headers, data.draw(bodies(request)))
        status, body = sent(stage.site, whole)
        arrived = stage.arrived()
        seen[status] += 1
        passed[len(arrived)] += 1
        assert 200 <= status < 500, (whole, body)
        assert len(arrived) <= 1, whole
        for server, told, document in arrived:
            who = told["x-ringfence-principal"]
            assert (who, request.credential.flaw) == (request.credential.who, None), whole
            method, params = document.get("method", "ping"), document.get("params", {})
            assert REFERENCE.allows(who, server, method, params), whole
            # A server that folds case would read another call.
            for level, known in ((document, ENVELOPE), (params, PARAMS)):
                assert not [n for n in level if n not in known and n.lower() in known], whole
            if (session := told.get("mcp-session-id")) is not None:
                assert stage.sessions[session] == who, whole
            if told.get("mcp-protocol-version") == MODERN:
                assert told["mcp-method"] == method, whole

    rounds(check, seen)
    print(f"reached a server: {passed[1]}")
    assert passed[1] > EXAMPLES / 40, "hardly anything was close to a call"
