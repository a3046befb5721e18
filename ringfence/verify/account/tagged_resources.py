"""Resources of one environment in an account, found by their tags."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ringfence.cloud.tags import ENVIRONMENT, GROUP, SECRET
from ringfence.report import UnverifiedError
from ringfence.verify.account.cloud import Cloud, Document, tag
from ringfence.verify.account.identities import IamIdentity, Identities

UP = "run pulumi up"


def secrets(cloud: Cloud) -> Mapping[tuple[str, str], Document]:
    """Map the server's security group and the name in the manifest to each secret."""
    found = cloud.all("secretsmanager", "list_secrets", "SecretList")
    return {
        (tag(each, GROUP) or "", tag(each, SECRET) or ""): each
        for each in found
        if tag(each, ENVIRONMENT) == cloud.environment.name
    }


def topic(cloud: Cloud) -> str:
    """Return the ARN of the topic for alerts. Raises `UnverifiedError` if there is none."""
    sns = cloud.client("sns")
    for each in cloud.all("sns", "list_topics", "Topics"):
        tagged = sns.list_tags_for_resource(ResourceArn=each["TopicArn"])
        if _is_named(cloud, tagged, "alerts"):
            return each["TopicArn"]
    raise UnverifiedError(f"{cloud.environment.name} has no topic for alerts; {UP}")


def alarms_of_logs(
    cloud: Cloud, topic: str, log_groups: Collection[str], namespace: str
) -> Iterator[tuple[Document, Document]]:
    """Yield metric filters of log groups, each with an alarm on its metric that uses the topic."""
    raised = [
        each
        for each in cloud.all("cloudwatch", "describe_alarms", "MetricAlarms")
        if each["ActionsEnabled"] and topic in each["AlarmActions"]
    ]
    for each in cloud.all("logs", "describe_metric_filters", "metricFilters"):
        if each["logGroupName"] in log_groups:
            counted = {
                (metric["metricNamespace"], metric["metricName"])
                for metric in each["metricTransformations"]
                if metric["metricNamespace"] == namespace
            }
            for alarm in raised:
                if (alarm.get("Namespace"), alarm.get("MetricName")) in counted:
                    yield each, alarm


def session_document(cloud: Cloud) -> str:
    """Return the name of the document for sessions. Raises `UnverifiedError` if there is none."""
    own = [{"Key": "Owner", "Values": ["Self"]}, {"Key": "DocumentType", "Values": ["Session"]}]
    for each in cloud.all("ssm", "list_documents", "DocumentIdentifiers", Filters=own):
        if _is_named(cloud, each, "sessions"):
            return each["Name"]
    raise UnverifiedError(f"{cloud.environment.name} has no document for sessions; {UP}")


def role(cloud: Cloud, name: str) -> IamIdentity:
    """Return an IAM role of the environment. Raises `UnverifiedError` if there is none."""
    wanted = {("Name", f"{cloud.environment.name}-{name}"), (ENVIRONMENT, cloud.environment.name)}
    for each in Identities(cloud).roles:
        if wanted <= {*each.tags}:
            return each
    raise UnverifiedError(f"{cloud.environment.name} has no role {name}; {UP}")


def _is_named(cloud: Cloud, thing: Document, name: str) -> bool:
    own = cloud.environment.name
    return tag(thing, ENVIRONMENT) == own and tag(thing, "Name") == f"{own}-{name}"


def is_own_key(cloud: Cloud, key: str | None) -> bool:
    """Return whether a key is enabled and belongs to the customer, not to AWS."""
    if not key or key.startswith("alias/aws/"):
        return False
    kms = cloud.client("kms")
    try:
        found = kms.describe_key(KeyId=key)["KeyMetadata"]
    except kms.exceptions.NotFoundException:
        return False
    return found["KeyManager"] == "CUSTOMER" and found["KeyState"] == "Enabled"


def is_key_of_class(cloud: Cloud, key: str | None, data_class: str) -> bool:
    usable = [each for each in cloud.keys.get(data_class, []) if each["KeyState"] == "Enabled"]
    return key in {each[name] for each in usable for name in ("Arn", "KeyId")}


def log_group(cloud: Cloud, name: str) -> Document:
    """Return the log group of this name; empty if there is none."""
    if not name:
        return {}
    found = cloud.all("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=name)
    return next((each for each in found if each["logGroupName"] == name), {})
