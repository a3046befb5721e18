"""The function that contains instances, with the emulated resources of a rehearsed environment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi_aws as aws
import pytest
from botocore.exceptions import ClientError
from example import EXAMPLE

from ringfence.cloud import containment, roles
from ringfence.manifest.model import Environment
from ringfence.rehearsal.engine.rehearse import rehearsed
from ringfence.rehearsal.engine.stacks import rehearsed_stack
from ringfence.rehearsal.record import Rehearsal, RehearsedResource
from ringfence.verify.account.access import AccessRequest, IamDecision, IamPrincipal, decide
from ringfence.verify.account.sample_events import SampleEvents
from stacks.components.response.containment import Containment, ContainmentArgs
from stacks.functions.containment.handler import IncompleteResponseError, Outcome, respond
from stacks.functions.containment.machine import ContainmentSettings

OURS = {"Key": "ringfence:environment", "Value": "payments-prod"}
ROLE, OTHER_ROLE = "time", "ledger"


@dataclass(frozen=True)
class Estate:
    """An instance of an environment, started as its launch template starts it."""

    place: Rehearsal
    instance: str
    second_interface: str

    @property
    def aws(self) -> Callable[[str], Any]:
        return self.place.account.client

    @property
    def samples(self) -> SampleEvents:
        return SampleEvents(self.place.account.id, self.place.account.region)

    @property
    def settings(self) -> ContainmentSettings:
        """Return the settings that Lambda passes to the function."""
        name = self.place.exports["containment_function_arn"].rpartition(":")[2]
        found = self.aws("lambda").get_function_configuration(FunctionName=name)
        return ContainmentSettings.read(found["Environment"]["Variables"])

    def sends(self, event: Any) -> list[Outcome]:
        return respond(event, self.settings, self.aws)

    def found(self, instance: str | None = None) -> dict[str, Any]:
        ids = [instance or self.instance]
        return self.aws("ec2").describe_instances(InstanceIds=ids)["Reservations"][0]["Instances"][
            0
        ]

    def groups(self, instance: str | None = None) -> dict[str, set[str]]:
        return {
            interface["NetworkInterfaceId"]: {g["GroupId"] for g in interface["Groups"]}
            for interface in self.found(instance)["NetworkInterfaces"]
        }

    def state(self) -> dict[str, Any]:
        """Return everything that containment changes and a release must restore."""
        attribute = self.aws("ec2").describe_instance_attribute(
            InstanceId=self.instance, Attribute="disableApiTermination"
        )
        found = self.found()
        return {
            "groups": self.groups(),
            "profile": found.get("IamInstanceProfile", {}).get("Arn"),
            "tags": {tag["Key"]: tag["Value"] for tag in found["Tags"]},
            "protected": attribute["DisableApiTermination"]["Value"],
            "scaling_group": self.scaling_group(self.instance),
        }

    def scaling_group(self, instance: str) -> str | None:
        scaling = self.aws("autoscaling")
        found = scaling.describe_auto_scaling_instances(InstanceIds=[instance])
        return next((e["AutoScalingGroupName"] for e in found["AutoScalingInstances"]), None)

    def snapshots(self) -> list[dict[str, Any]]:
        its = [{"Name": "tag:ringfence:instance", "Values": [self.instance]}]
        return self.aws("ec2").describe_snapshots(Filters=its)["Snapshots"]

    def recorded(self) -> bool:
        names = [each["Name"] for each in self.aws("ssm").describe_parameters()["Parameters"]]
        return f"/ringfence/payments-prod/containment/{self.instance}" in names

    def notifications(self) -> list[str]:
        """Return what the topic has sent since the last call."""
        sqs = self.aws("sqs")
        url = sqs.get_queue_url(QueueName="notifications")["QueueUrl"]
        found: list[str] = []
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                found.append(json.loads(message["Body"])["Message"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def decides(self, instance: str, issued: str, role: str = ROLE) -> IamDecision:
        """Return whether credentials of an instance may read a secret that its role may read."""
        iam = self.aws("iam")
        policies = [
            iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            for name in iam.list_role_policies(RoleName=role)["PolicyNames"]
        ]
        found = iam.get_role(RoleName=role)["Role"]
        context = {"aws:userid": f"{found['RoleId']}:{instance}", "aws:TokenIssueTime": issued}
        request = AccessRequest(
            "secretsmanager:GetSecretValue", "*", IamPrincipal("AWS", found["Arn"]), context
        )
        return decide(request, policies)


@pytest.fixture(scope="module")
def place() -> Iterator[Rehearsal]:
    environment = Environment.load(EXAMPLE)
    with rehearsed_stack(environment, preview=False) as rehearsal:
        client = rehearsal.account.client
        for role in (ROLE, OTHER_ROLE):
            _role(client("iam"), environment, role)
        root = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8}}
        client("ec2").register_image(
            Name="debian-13", RootDeviceName="/dev/xvda", BlockDeviceMappings=[root]
        )
        client("sqs").create_queue(QueueName="notifications")
        topic = rehearsal.exports["alerts_topic_arn"]
        queue = rehearsal.account.arn("sqs", "notifications")
        client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
        yield rehearsal


@pytest.fixture
def estate(place: Rehearsal) -> Estate:
    instance = _instance(place, [OURS])
    made = Estate(place, instance, _second_interface(place, instance))
    made.notifications()
    return made


def _role(iam: Any, environment: Environment, name: str) -> None:
    path = roles.workloads_path(environment)
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    trust = {**statement, "Principal": {"Service": "ec2.amazonaws.com"}}
    iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=_document(trust))
    reads = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
    iam.put_role_policy(RoleName=name, PolicyName="secrets", PolicyDocument=_document(reads))
    iam.create_instance_profile(InstanceProfileName=name, Path=path)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)


def _document(statement: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _instance(place: Rehearsal, tags: list[dict[str, str]]) -> str:
    out = place.exports
    interface = {
        "DeviceIndex": 0,
        "SubnetId": out["subnet_ids"]["servers"]["eu-central-1a"],
        "Groups": [out["group_ids"]["base"], out["group_ids"]["server-time"]],
    }
    disk = {"Ebs": {"VolumeSize": 8, "Encrypted": True, "KmsKeyId": out["key_arns"]["restricted"]}}
    made = place.account.client("ec2").run_instances(
        ImageId=_image(place),
        MinCount=1,
        MaxCount=1,
        NetworkInterfaces=[interface],
        BlockDeviceMappings=[{"DeviceName": f"/dev/xvd{letter}", **disk} for letter in "ab"],
        IamInstanceProfile={"Name": ROLE},
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}] if tags else [],
    )
    return made["Instances"][0]["InstanceId"]


def _image(place: Rehearsal) -> str:
    return place.account.client("ec2").describe_images(Owners=["self"])["Images"][0]["ImageId"]


def _second_interface(place: Rehearsal, instance: str) -> str:
    ec2, out = place.account.client("ec2"), place.exports
    made = ec2.create_network_interface(
        SubnetId=out["subnet_ids"]["servers"]["eu-central-1a"],
        Groups=[out["group_ids"]["base"]],
    )["NetworkInterface"]["NetworkInterfaceId"]
    ec2.attach_network_interface(NetworkInterfaceId=made, InstanceId=instance, DeviceIndex=1)
    return made


def _scaling_group(estate: Estate, largest: int) -> str:
    """Create a scaling group with the instance in it."""
    name, scaling = f"group-of-{estate.instance}", estate.aws("autoscaling")
    template = {"ImageId": _image(estate.place), "InstanceType": "t4g.small"}
    estate.aws("ec2").create_launch_template(LaunchTemplateName=name, LaunchTemplateData=template)
    scaling.create_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=0,
        MaxSize=largest,
        LaunchTemplate={"LaunchTemplateName": name},
        VPCZoneIdentifier=",".join(estate.place.exports["subnet_ids"]["servers"].values()),
    )
    scaling.attach_instances(InstanceIds=[estate.instance], AutoScalingGroupName=name)
    return name


@contextmanager
def refused(estate: Estate, service: str, operation: str) -> Iterator[None]:
    """Make AWS refuse one call, as in an outage or without a permission."""

    def refuse(**_: Any) -> None:
        answer = {"Error": {"Code": "InternalError", "Message": "AWS is down"}}
        raise ClientError(answer, operation)

    hooks, name = estate.aws(service).meta.events, f"before-call.{service}.{operation}"
    hooks.register(name, refuse)
    try:
        yield
    finally:
        hooks.unregister(name, refuse)


def quarantined(estate: Estate) -> bool:
    wanted = {estate.place.exports["quarantine_group_id"]}
    groups = estate.groups()
    return len(groups) == 2 and all(found == wanted for found in groups.values())


FINDINGS: dict[str, Callable[[Estate], Any]] = {
    "GuardDuty": lambda estate: estate.samples.guardduty(estate.instance),
    "Security Hub": lambda estate: estate.samples.security_hub(estate.instance),
    "a request": lambda estate: estate.samples.request(estate.instance),
}


@pytest.mark.parametrize("kind", FINDINGS)
def test_an_instance_is_contained(estate: Estate, kind: str) -> None:
    (done,) = estate.sends(event := FINDINGS[kind](estate))
    assert done.keys() == {
        *("record", "network", "credentials", "profile", "protection", "snapshots")
    }
    assert quarantined(estate)
    state = estate.state()
    assert (state["profile"], state["protected"]) == (None, True)
    assert state["tags"]["ringfence:containment"] == event["id"]
    assert len(state["tags"]["ringfence:containment-reason"]) > 10


def test_snapshots_are_of_all_disks_and_encrypted(estate: Estate) -> None:
    estate.sends(event := estate.samples.guardduty(estate.instance))
    snapshots = estate.snapshots()
    volumes = {each["Ebs"]["VolumeId"] for each in estate.found()["BlockDeviceMappings"]}
    assert len(volumes) == 2
    assert {each["VolumeId"] for each in snapshots} == volumes
    for snapshot in snapshots:
        tags = {tag["Key"]: tag["Value"] for tag in snapshot["Tags"]}
        assert snapshot["Encrypted"]
        assert tags["ringfence:containment"] == event["id"]
        assert tags["ringfence:environment"] == "payments-prod"
        assert tags["ringfence:instance"] == estate.instance


def test_credentials_of_the_instance_are_worthless_and_no_others(estate: Estate) -> None:
    before, later = "2026-01-01T00:00:00Z", "2099-01-01T00:00:00Z"
    like = "i-0123456789abcdef0"
    assert estate.decides(estate.instance, before) is IamDecision.ALLOWED
    estate.sends(estate.samples.guardduty(estate.instance))
    # Later ones too: the instance gets new ones until its profile is removed.
    for issued in (before, later):
        assert estate.decides(estate.instance, issued) is IamDecision.DENIED
    assert estate.decides(like, before) is IamDecision.ALLOWED
    assert estate.decides(like, before, OTHER_ROLE) is IamDecision.ALLOWED


def test_a_notification_names_the_steps_and_the_release(estate: Estate) -> None:
    estate.sends(estate.samples.guardduty(estate.instance))
    (message,) = estate.notifications()
    assert f"Instance {estate.instance} of payments-prod was contained." in message
    assert "CryptoCurrency:EC2/BitcoinTool.B!DNS (8), reported by GuardDuty" in message
    for snapshot in estate.snapshots():
        assert snapshot["SnapshotId"] in message
    command = message.splitlines()[-1]
    entry = json.loads(command.partition("--entries '")[2].removesuffix("'"))[0]
    event = estate.samples.event(
        entry["Source"], entry["DetailType"], json.loads(entry["Detail"]), "release"
    )
    assert estate.sends(event)
    assert not quarantined(estate)


def test_a_second_event_changes_nothing(estate: Estate) -> None:
    """EventBridge delivers at least once, and each update of a finding sends it again."""
    estate.sends(event := estate.samples.guardduty(estate.instance))
    estate.notifications()
    state, snapshots = estate.state(), estate.snapshots()
    assert estate.sends(event) == [{}]
    assert estate.sends({**event, "id": "another"}) == [{}]
    assert estate.state() == state
    assert estate.snapshots() == snapshots
    assert estate.notifications() == []


def test_what_somebody_opened_again_is_shut_again(estate: Estate) -> None:
    estate.sends(event := estate.samples.guardduty(estate.instance))
    estate.aws("ec2").modify_network_interface_attribute(
        NetworkInterfaceId=estate.second_interface,
        Groups=[estate.place.exports["group_ids"]["base"]],
    )
    (done,) = estate.sends({**event, "id": "another"})
    assert done.keys() == {"network"}
    assert quarantined(estate)


def test_release_puts_everything_back(estate: Estate) -> None:
    before = estate.state()
    estate.sends(estate.samples.guardduty(estate.instance))
    release = estate.samples.request(estate.instance, kind=containment.RELEASE)
    assert estate.state() != before
    assert estate.recorded()
    (done,) = estate.sends(release)
    assert done.keys() == {"credentials", "profile", "protection", "network"}
    assert estate.state() == before
    assert not estate.recorded()
    assert "was released." in estate.notifications()[-1]
    assert len(estate.snapshots()) == 2  # evidence stays
    assert estate.sends(release) == [{}]


def test_credentials_from_before_stay_worthless_after_a_release(estate: Estate) -> None:
    """An attacker may have copied them; they are valid for hours."""
    estate.sends(estate.samples.guardduty(estate.instance))
    estate.sends(estate.samples.request(estate.instance, kind=containment.RELEASE))
    assert estate.decides(estate.instance, "2026-01-01T00:00:00Z") is IamDecision.DENIED
    assert estate.decides(estate.instance, "2099-01-01T00:00:00Z") is IamDecision.ALLOWED


def test_protection_that_was_there_before_stays(estate: Estate) -> None:
    estate.aws("ec2").modify_instance_attribute(
        InstanceId=estate.instance, DisableApiTermination={"Value": True}
    )
    estate.sends(estate.samples.guardduty(estate.instance))
    estate.sends(estate.samples.request(estate.instance, kind=containment.RELEASE))
    assert estate.state()["protected"] is True


def test_an_instance_can_be_contained_again(estate: Estate) -> None:
    """A new incident has its own evidence."""
    release = estate.samples.request(estate.instance, kind=containment.RELEASE)
    estate.sends(estate.samples.guardduty(estate.instance, id_="first"))
    estate.sends(release)
    before = estate.state()
    estate.sends(estate.samples.guardduty(estate.instance, id_="second"))
    assert quarantined(estate)
    assert len(estate.snapshots()) == 4
    assert estate.decides(estate.instance, "2099-01-01T00:00:00Z") is IamDecision.DENIED
    estate.sends(release)
    assert estate.state() == before


def test_an_instance_leaves_its_scaling_group_and_comes_back(estate: Estate) -> None:
    name = _scaling_group(estate, largest=2)
    before = estate.state()
    assert before["scaling_group"] == name
    (done,) = estate.sends(estate.samples.guardduty(estate.instance))
    assert "scaling_group" in done
    assert estate.scaling_group(estate.instance) is None
    # Another instance has taken its place.
    found = estate.aws("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])
    assert len(found["AutoScalingGroups"][0]["Instances"]) == 1
    estate.sends(estate.samples.request(estate.instance, kind=containment.RELEASE))
    assert estate.state() == before


REFUSED = {
    "of another environment": lambda estate: _instance(estate.place, [{**OURS, "Value": "other"}]),
    "of nobody": lambda estate: _instance(estate.place, []),
    "that is not there": lambda _: "i-0123456789abcdef0",
}


@pytest.mark.parametrize("which", REFUSED)
@pytest.mark.parametrize("kind", ["contain", "release"])
def test_an_instance_is_left_alone(
    estate: Estate, which: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    instance = REFUSED[which](estate)
    groups = estate.groups(instance) if which != "that is not there" else {}
    events = {
        "contain": estate.samples.guardduty(instance),
        "release": estate.samples.request(instance, kind=containment.RELEASE),
    }
    assert estate.sends(events[kind]) == [{}]
    if groups:
        assert estate.groups(instance) == groups
        assert estate.found(instance)["IamInstanceProfile"]
    assert estate.snapshots() == []
    assert estate.notifications() == []
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["outcome"] == "ignored"


def test_an_instance_that_is_not_contained_is_not_released(estate: Estate) -> None:
    before = estate.state()
    assert estate.sends(estate.samples.request(estate.instance, kind=containment.RELEASE)) == [{}]
    assert estate.state() == before


IGNORED: dict[str, Callable[[Estate], Any]] = {
    "severity 6.9 is below 7": lambda e: e.samples.guardduty(e.instance, severity=6.9),
    "the event names no instance": lambda e: e.samples.guardduty("i-99999999; x"),
    "no new finding reports an attack on an instance": (
        lambda e: e.samples.security_hub(
            e.instance, kind="Software and Configuration Checks/Vulnerabilities/CVE"
        )
    ),
    "the request has no requested_by": lambda e: e.samples.request(e.instance, requested_by=""),
    "no action is defined for Scheduled Event of aws.events": lambda e: e.samples.event(
        "aws.events", "Scheduled Event", {}, "1"
    ),
}


@pytest.mark.parametrize("why", IGNORED)
def test_an_event_is_ignored(estate: Estate, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An event is ignored even if it matches a rule."""
    before = estate.state()
    assert estate.sends(IGNORED[why](estate)) == []
    assert estate.state() == before
    assert json.loads(capsys.readouterr().out)["detail"] == why


STEPS = {
    "record": ("ssm", "PutParameter"),
    "scaling_group": ("autoscaling", "DescribeAutoScalingInstances"),
    "credentials": ("iam", "PutRolePolicy"),
    "profile": ("ec2", "DisassociateIamInstanceProfile"),
    "protection": ("ec2", "ModifyInstanceAttribute"),
    "snapshots": ("ec2", "CreateSnapshots"),
    "notification": ("sns", "Publish"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_stops_no_other(estate: Estate, step: str) -> None:
    event = estate.samples.guardduty(estate.instance)
    with (
        refused(estate, *STEPS[step]),
        pytest.raises(
            IncompleteResponseError, match=f"is not completely contained: {step}: .*is down"
        ),
    ):
        estate.sends(event)
    assert quarantined(estate)
    assert (step == "snapshots") == (not estate.snapshots())
    assert (step == "profile") == (estate.state()["profile"] is not None)
    messages = estate.notifications()
    assert bool(messages) == (step != "notification")
    assert all(f"FAILED: {step}" in message for message in messages)
    marked = estate.state()["tags"].get("ringfence:containment", "")
    assert marked == ("" if step == "notification" else f"incomplete: {event['id']}")


@pytest.mark.parametrize("step", [step for step in STEPS if step != "record"])
def test_lambda_tries_again_and_completes_it(estate: Estate, step: str) -> None:
    before = estate.state()
    event = estate.samples.guardduty(estate.instance)
    with refused(estate, *STEPS[step]), pytest.raises(IncompleteResponseError):
        estate.sends(event)
    estate.notifications()
    estate.sends(event)
    (message,) = estate.notifications()
    assert "was contained.\n" in message
    assert len(estate.snapshots()) == 2
    state = estate.state()
    assert state["profile"] is None
    assert state["tags"]["ringfence:containment"] == event["id"]
    estate.sends(estate.samples.request(estate.instance, kind=containment.RELEASE))
    assert estate.state() == before


def test_a_network_that_cannot_be_cut_does_not_save_the_credentials(estate: Estate) -> None:
    with (
        refused(estate, "ec2", "ModifyNetworkInterfaceAttribute"),
        pytest.raises(IncompleteResponseError, match="network: "),
    ):
        estate.sends(estate.samples.guardduty(estate.instance))
    assert estate.state()["profile"] is None
    assert len(estate.snapshots()) == 2


def test_quarantine_is_never_what_is_recorded(estate: Estate) -> None:
    """A release would restore it. The message and the log, at least, have the state."""
    event = estate.samples.guardduty(estate.instance)
    with refused(estate, "ssm", "PutParameter"), pytest.raises(IncompleteResponseError):
        estate.sends(event)
    (message,) = estate.notifications()
    assert estate.place.exports["group_ids"]["server-time"] in message
    for again in (event, estate.samples.request(estate.instance, kind=containment.RELEASE)):
        with pytest.raises(IncompleteResponseError, match="its original state is not recorded"):
            estate.sends(again)
    assert quarantined(estate)


def test_a_release_that_fails_leaves_the_rest_shut(estate: Estate) -> None:
    before = estate.state()
    estate.sends(estate.samples.guardduty(estate.instance))
    release = estate.samples.request(estate.instance, kind=containment.RELEASE)
    with (
        refused(estate, "ec2", "AssociateIamInstanceProfile"),
        pytest.raises(
            IncompleteResponseError, match=r"is not completely released: profile: .*is down"
        ),
    ):
        estate.sends(release)
    assert quarantined(estate)
    estate.sends(release)
    assert estate.state() == before


def test_every_step_is_a_line_of_json(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    estate.sends(event := estate.samples.guardduty(estate.instance))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["step"] for line in lines] == [
        *("record", "network", "scaling_group", "credentials", "profile", "protection"),
        "snapshots",
    ]
    assert {(line["event"], line["instance"]) for line in lines} == {(event["id"], estate.instance)}
    assert [line["outcome"] for line in lines].count("done") == 6


def test_the_role_may_do_what_the_function_does_and_no_more(
    estate: Estate, environment: Environment
) -> None:
    """The role has no permission that no call needs; a check verifies that each call is allowed
    (`test_containment_may_do_all_of_it`)."""
    called: set[str] = set()

    def note(model: Any, **_: Any) -> None:
        called.add(f"{model.service_model.service_name}:{model.name}")

    services = ("ec2", "iam", "autoscaling", "ssm", "sns")
    clients = [estate.aws(service) for service in services]
    _scaling_group(estate, largest=2)
    settings = estate.settings
    for client in clients:
        client.meta.events.register("before-call", note)
    respond(estate.samples.guardduty(estate.instance), settings, estate.aws)
    release = estate.samples.request(estate.instance, kind=containment.RELEASE)
    respond(release, settings, estate.aws)
    for client in clients:
        client.meta.events.unregister("before-call", note)
    (policy,) = (
        json.loads(r.inputs["policy"])
        for r in estate.place.of_type("aws:iam/rolePolicy:RolePolicy")
        if r.name == f"{environment.name}-containment"
    )
    allowed = {
        action
        for statement in policy["Statement"]
        for action in (
            statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        )
    }
    implied = {
        *("iam:PassRole", "sqs:SendMessage", "kms:Decrypt", "kms:GenerateDataKey"),
        *("logs:CreateLogStream", "logs:PutLogEvents"),
        *("xray:PutTelemetryRecords", "xray:PutTraceSegments"),
    }
    assert called == allowed - implied
    assert implied < allowed


def _function(rehearsal: Rehearsal) -> RehearsedResource:
    arn = rehearsal.exports["containment_function_arn"]
    functions = rehearsal.of_type("aws:lambda/function:Function")
    return next(function for function in functions if function.outputs["arn"] == arn)


def test_the_code_runs_where_lambda_unpacks_it(rehearsal: Rehearsal, tmp_path: Path) -> None:
    function = _function(rehearsal)
    assets = function.inputs["code"].assets
    assert len(assets) == 5
    for name, asset in assets.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(Path(asset.path).read_bytes())
    module, _, name = function.inputs["handler"].rpartition(".")
    program = f"import importlib; print(importlib.import_module({module!r}).{name}.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "handle\n"), done.stderr


def test_nothing_secret_is_in_the_settings(rehearsal: Rehearsal) -> None:
    function = _function(rehearsal)
    variables = function.inputs["environment"]["variables"]
    assert variables.keys() == {
        *("CONTROL", "ENVIRONMENT", "QUARANTINE_GROUP", "RECORDS", "SEVERITY", "TOPIC"),
    }
    assert function.inputs["kmsKeyArn"].startswith("arn:aws:kms:")


def test_a_detector_and_a_boundary_narrow_it(environment: Environment) -> None:
    boundary = "arn:aws:iam::111122223333:policy/hosts"

    def program() -> None:
        account = aws.get_caller_identity().account_id
        vpc = aws.ec2.Vpc("vpc", cidr_block="10.1.0.0/16")
        detector = aws.guardduty.Detector("detector")
        Containment(
            "containment",
            ContainmentArgs(
                environment=environment,
                account=account,
                region="eu-central-1",
                vpc_id=vpc.id,
                log_key_arn="arn:aws:kms:eu-central-1:111122223333:key/data",
                topic_arn="arn:aws:sns:eu-central-1:111122223333:topic",
                topic_key_arn="arn:aws:kms:eu-central-1:111122223333:key/topic",
                detector_id=detector.id,
                boundary_arn=boundary,
            ),
        )

    with rehearsed(program, project="p", stack="test", region="eu-central-1") as rehearsal:
        (detector,) = rehearsal.of_type("aws:guardduty/detector:Detector")
        rules = rehearsal.of_type("aws:cloudwatch/eventRule:EventRule")
        (policy,) = rehearsal.of_type("aws:iam/rolePolicy:RolePolicy")
    patterns = {rule.name: json.loads(rule.inputs["eventPattern"]) for rule in rules}
    finding = patterns["containment-guardduty"]["detail"]
    assert finding["service"] == {"detectorId": [detector.id]}
    role = f"arn:aws:iam::{rehearsal.account.id}:role/ringfence/payments-prod/workloads/time/x"
    for under, expected in (
        (boundary, IamDecision.ALLOWED),
        (f"{boundary}2", IamDecision.NOT_ALLOWED),
    ):
        request = AccessRequest(
            "iam:PutRolePolicy", role, context={"iam:PermissionsBoundary": under}
        )
        assert decide(request, [json.loads(policy.inputs["policy"])]) is expected
