"""Launch templates of hosts in EC2, derived from the manifest alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ringfence.cloud import machines, policies
from ringfence.manifest.model import Environment, Machine
from ringfence.verify.account.access import AccessRequest, IamDecision, IamPrincipal, granted

EXAMPLE = Path(__file__).parents[2] / "inventories" / "aws-example" / "environment.yaml"
ACCOUNT, REGION = "111122223333", "eu-central-1"
AUTO_SCALING = (
    f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/autoscaling.amazonaws.com/"
    "AWSServiceRoleForAutoScaling"
)
THROUGH = {"kms:ViaService": f"ec2.{REGION}.amazonaws.com", "kms:CallerAccount": ACCOUNT}


@pytest.fixture(scope="module")
def environment() -> Environment:
    return Environment.load(EXAMPLE)


@pytest.mark.parametrize(
    ("host", "kind", "disk", "data_class", "role_group"),
    [
        ("edge-1", "c7g.large", 16, "internal", "host-edge-1"),
        ("tools-1", "t4g.medium", 16, "internal", "server-time"),
        ("mcp-ledger", "t4g.medium", 16, "restricted", "server-ledger"),
        ("ledger-db-1", "t4g.medium", 100, "restricted", "host-ledger-db-1"),
        ("sensor-1", "c7g.xlarge", 40, "internal", "host-sensor-1"),
        ("siem-1", "t4g.large", 200, "internal", "host-siem-1"),
    ],
)
def test_a_host_is_the_machine_of_its_group(
    environment: Environment, host: str, kind: str, disk: int, data_class: str, role_group: str
) -> None:
    found = environment.hosts[host]
    assert machines.machine(environment, found) == Machine(kind, disk)
    assert machines.data_class(environment, found) == data_class
    assert machines.role_group(environment, found) == role_group


def test_the_first_group_decides_and_without_any_the_smallest_machine_does(
    environment: Environment,
) -> None:
    both = replace(environment.hosts["siem-1"], groups=frozenset({"siem", "edge"}))
    assert machines.machine(environment, both).type == "c7g.large"
    none = replace(both, groups=frozenset())
    assert machines.machine(environment, none) == Machine("t4g.small", 16)


@pytest.mark.parametrize(("kind", "of"), [("t4g.small", "arm64"), ("m7i-flex.large", "amd64")])
def test_the_image_is_of_the_machines_architecture(
    environment: Environment, kind: str, of: str
) -> None:
    assert environment.provisioning
    place = replace(environment.provisioning, machines={"edge": Machine(kind, 16)})
    changed = replace(environment, provisioning=place)
    found = machines.architecture(changed, changed.hosts["edge-1"])
    assert machines.image(found) == f"resolve:ssm:/aws/service/debian/release/13/latest/{of}"


def test_only_what_keeps_data_outlives_its_machine(environment: Environment) -> None:
    kept = {host.name for host in environment.hosts.values() if machines.keeps_data(host)}
    assert kept == {"siem-1", "ledger-db-1"}


def test_a_secret_is_read_on_both_ends(environment: Environment) -> None:
    found = {
        name: [own.key for own in machines.readable_secrets(environment, host)]
        for name, host in environment.hosts.items()
    }
    assert {name: keys for name, keys in found.items() if keys} == {
        "mcp-ledger": ["ledger.ledger-password", "ledger.rates-api-key"],
        "ledger-db-1": ["ledger.ledger-password"],
    }


@pytest.mark.parametrize(
    ("action", "who", "context", "decision"),
    [
        ("kms:GenerateDataKeyWithoutPlaintext", AUTO_SCALING, THROUGH, IamDecision.ALLOWED),
        ("kms:Decrypt", AUTO_SCALING, {"kms:CallerAccount": ACCOUNT}, IamDecision.NOT_ALLOWED),
        ("kms:CreateGrant", AUTO_SCALING, THROUGH, IamDecision.NOT_ALLOWED),
        (
            "kms:CreateGrant",
            AUTO_SCALING,
            {**THROUGH, "kms:GrantIsForAWSResource": "true"},
            IamDecision.ALLOWED,
        ),
        (
            "kms:Decrypt",
            AUTO_SCALING.replace(ACCOUNT, "999999999999"),
            {**THROUGH, "kms:CallerAccount": "999999999999"},
            IamDecision.NOT_ALLOWED,
        ),
        (
            "kms:Decrypt",
            "arn:aws:iam::999999999999:role/any",
            {**THROUGH, "kms:CallerAccount": "999999999999"},
            IamDecision.NOT_ALLOWED,
        ),
    ],
)
def test_auto_scaling_uses_keys_for_disks_only(
    action: str, who: str, context: dict[str, str], decision: IamDecision
) -> None:
    """No policy of its role names keys: only the key's policy decides."""
    policy = json.loads(
        policies.key_policy(account=ACCOUNT, region=REGION, log_groups="payments-prod-")
    )
    request = AccessRequest(action, "arn:aws:kms:::key/1", IamPrincipal("AWS", who), context)
    assert granted([policy], request) is decision
