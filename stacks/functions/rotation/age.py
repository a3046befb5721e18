"""Which secrets are older than the manifest says, of either kind: nobody looks by himself.

One line of JSON per run, which a metric filter counts; an alarm comes when something is overdue,
and when no line comes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

ENVIRONMENT_TAG, DAYS_TAG = "ringfence:environment", "ringfence:rotation-days"
GRACE = timedelta(days=1)
"""Secrets Manager rotates within a window of its own on the day."""


def check(_event: object, _context: object) -> None:
    """What Lambda calls."""
    # Not at the top: the rest is tried where no region is set.
    import boto3

    make: Any = boto3.client
    print(json.dumps(report(make("secretsmanager"), os.environ["ENVIRONMENT"], datetime.now(UTC))))


def report(client: Any, environment: str, now: datetime) -> dict[str, Any]:
    due = {each["Name"]: _fault(client, each, now) for each in _secrets(client, environment)}
    overdue = [f"{name}: {fault}" for name, fault in sorted(due.items()) if fault]
    return {"checked": len(due), "overdue": len(overdue), "secrets": overdue}


def _secrets(client: Any, environment: str) -> Iterator[Mapping[str, Any]]:
    filters = [{"Key": "tag-key", "Values": [ENVIRONMENT_TAG]}]
    for page in client.get_paginator("list_secrets").paginate(Filters=filters):
        for each in page["SecretList"]:
            # The filter takes keys and values apart, and beginnings for the whole.
            if _tags(each).get(ENVIRONMENT_TAG) == environment:
                yield each


def _tags(secret: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in secret.get("Tags", [])}


def _fault(client: Any, secret: Mapping[str, Any], now: datetime) -> str | None:
    days = int(_tags(secret).get(DAYS_TAG, "0"))
    made = _made(client, secret["ARN"])
    if made is None:
        return "has no value"
    age = now - made
    return f"{age.days} days old, of {days}" if age > timedelta(days=days) + GRACE else None


def _made(client: Any, secret: str) -> datetime | None:
    """When the current value came: LastChangedDate follows every tag."""
    # Only versions with a label are listed, of which there are few.
    for version in client.list_secret_version_ids(SecretId=secret)["Versions"]:
        if "AWSCURRENT" in version.get("VersionStages", []):
            return version["CreatedDate"]
    return None
