"""The gateway's configuration and the flows to it follow from the manifest."""

from __future__ import annotations

import json
from copy import deepcopy
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.inventory import firewall, mcp_gateway, tls
from ringfence.manifest.model import Environment

ROOT = Path(__file__).parents[2]
LAB = ROOT / "inventories/lab/environment.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(LAB.read_text())


@pytest.fixture
def load(tmp_path: Path):
    def load(**gateway: Any) -> Environment:
        """Load the lab's manifest with another gateway."""
        document = deepcopy(DOCUMENT)
        document["gateway"] = gateway
        file = tmp_path / "environment.yaml"
        file.write_text(yaml.safe_dump(document))
        return Environment.load(file)

    return load


@pytest.fixture
def lab() -> Environment:
    return Environment.load(LAB)


def configured(environment: Environment) -> dict[str, Any]:
    assert environment.gateway
    host = environment.hosts["edge-1"]
    return mcp_gateway.configuration(environment, environment.gateway, host)


def test_every_tool_keeps_its_class_and_its_approvers(lab: Environment) -> None:
    servers = configured(lab)["servers"]
    assert {name: server["tools"].keys() for name, server in servers.items()} == {
        name: server.tools.keys() for name, server in lab.servers.items()
    }
    assert servers["git"]["tools"]["git_commit"] == {
        "data_class": "internal",
        "sensitive": True,
        "approvers": ["carol", "dana"],
    }
    assert servers["sqlite"]["resources"] == {"memo://insights": {"data_class": "internal"}}
    assert servers["sqlite"]["prompts"] == {"mcp-demo": {"data_class": "public"}}


def test_roles_name_what_they_name_in_the_manifest(lab: Environment) -> None:
    roles = configured(lab)["roles"]
    assert roles.keys() == lab.roles.keys()
    assert roles["analyst"]["resources"] == {"sqlite": ["memo://insights"]}
    assert roles["observer"]["tools"]["time"] == ["get_current_time", "convert_time"]


def test_a_person_is_known_by_the_uri_of_their_certificate(lab: Environment) -> None:
    principals = configured(lab)["principals"]
    assert principals["carol"]["uri"] == "urn:ringfence:lab:principal:carol"
    assert principals["build-agent"]["owner"] == "dana"


def test_a_server_is_reached_by_address_and_known_by_name(lab: Environment) -> None:
    time = configured(lab)["servers"]["time"]
    assert time["url"] == "https://10.213.30.11:8441/mcp"
    assert time["server_name"] == "tools-1.lab.internal"


def test_another_port_stands_in_every_name(load) -> None:
    configuration = configured(load(port=8443))
    assert configuration["resource"] == "https://edge-1.lab.internal:8443"
    assert set(configuration["hosts"]) == {
        "edge-1.lab.internal:8443",
        "edge-1:8443",
        "10.213.50.11:8443",
        "[fd0d:213:50::11]:8443",
    }


@pytest.mark.parametrize(
    ("stage", "masked"), [("development", True), ("staging", True), ("production", False)]
)
def test_personal_data_is_masked_outside_production(
    tmp_path: Path, stage: str, masked: bool
) -> None:
    file = tmp_path / "environment.yaml"
    file.write_text(yaml.safe_dump({**DOCUMENT, "stage": stage}))
    assert configured(Environment.load(file))["inspection"]["mask"] is masked


def test_what_the_manifest_does_not_say_is_strict(load) -> None:
    configuration = configured(load())
    assert configuration["tokens"]["ceiling_seconds"] == 900
    assert configuration["tokens"]["sender_constraint"] == "certificate"
    assert configuration["inspection"]["classes"] == {
        "public": "flag",
        "internal": "redact",
        "confidential": "redact",
        "restricted": "block",
    }
    assert configuration["origins"] == []
    assert configuration["responders"] == []


def test_one_action_of_inspection_leaves_the_others(load) -> None:
    classes = configured(load(inspection={"internal": "block"}))["inspection"]["classes"]
    assert classes == {
        "public": "flag",
        "internal": "block",
        "confidential": "redact",
        "restricted": "block",
    }


def test_an_issuer_brings_its_files(load, tmp_path: Path) -> None:
    tokens = {
        "issuers": [
            {"issuer": "https://a.example", "jwks_file": "a.json"},
            {
                "issuer": "https://b.example",
                "jwks_url": "https://10.213.40.11:8443/keys",
                "network": "10.213.40.11/32",
                "ca_file": "b.crt",
                "principal_claim": "client_id",
            },
        ]
    }
    environment = load(tokens=tokens)
    first, second = configured(environment)["tokens"]["issuers"]
    assert (first["jwks_file"], first["jwks_url"]) == ("issuer-0.jwks.json", None)
    assert (second["jwks_file"], second["ca_file"]) == (None, "issuer-1.ca.crt")
    assert second["principal_claim"] == "client_id"
    assert mcp_gateway.files(environment) == {
        "issuer-0.jwks.json": tmp_path / "a.json",
        "issuer-1.ca.crt": tmp_path / "b.crt",
    }
    (account,) = firewall.gateway_accounts(environment, environment.hosts["edge-1"])
    reached = {(rule["network"], rule["port"]) for rule in account["egress"]}
    assert ("10.213.40.11/32", 8443) in reached
    assert (
        "10.213.40.11/32"
        in mcp_gateway.variables(environment, environment.hosts["edge-1"])["mcp_gateway_reaches"]
    )


def test_what_people_write_lies_beside_the_manifest(load, tmp_path: Path) -> None:
    environment = load()
    for name in ("policies/night.cedar", "pins/git.json", "pins/gone.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert mcp_gateway.files(environment).keys() == {"policies/night.cedar", "pins/git.json"}


def test_clients_reach_the_gateway_and_no_server(lab: Environment) -> None:
    caller = ip_address("10.213.20.7")

    def open_to(caller: Any, host: str) -> set[int]:
        rules = firewall.inbound(lab, lab.hosts[host])
        return {rule.port for rule in rules if caller in rule.network}

    assert open_to(caller, "edge-1") == {443}
    assert open_to(caller, "tools-1") == set()
    gateway = lab.hosts["edge-1"].address
    assert open_to(gateway, "tools-1") == {8441, 8442, 8443}


def test_only_the_account_of_the_gateway_reaches_servers(lab: Environment) -> None:
    edge, ports = lab.hosts["edge-1"], {server.port for server in lab.servers.values()}
    assert not ports & {rule.port for rule in firewall.outbound(lab, edge)}
    (account,) = firewall.variables(lab, edge)["firewall_accounts"]
    assert account["name"] == mcp_gateway.ACCOUNT
    assert {rule["port"] for rule in account["egress"]} == ports
    assert firewall.gateway_accounts(lab, lab.hosts["tools-1"]) == []


def test_servers_let_nobody_in_but_the_gateway(lab: Environment) -> None:
    for front in tls.variables(lab, lab.hosts["tools-1"])["tls_frontends"]:
        assert front["forwarded"]
        assert front["callers"] == [
            {"principal": "edge-1", "subject": "CN=edge-1.lab.internal,OU=hosts,O=lab"}
        ]
    assert tls.variables(lab, lab.hosts["tools-1"])["tls_gateway"] == {}


def test_without_a_gateway_servers_let_callers_in() -> None:
    direct = Environment.load(Path(__file__).parent / "manifests/direct.yaml")
    fronts = tls.variables(direct, direct.hosts["tools-1"])["tls_frontends"]
    assert not any(front["forwarded"] for front in fronts)
    assert {caller["principal"] for caller in fronts[0]["callers"]} == {
        "carol",
        "dana",
        "build-agent",
    }


def test_the_frontend_has_a_socket_for_every_process(load) -> None:
    environment = load(processes=3, client_certificates="optional")
    front = tls.gateway(environment, environment.hosts["edge-1"])
    assert front["sockets"] == [f"/run/ringfence-gateway/{number}.sock" for number in (1, 2, 3)]
    assert front["client_certificates"] == "optional"


def test_it_can_be_written_as_json(lab: Environment) -> None:
    assert json.loads(json.dumps(configured(lab))) == configured(lab)
