"""Reports secrets that are older than the manifest says.

Each run prints one line of JSON, and a metric filter counts it. An alarm fires on overdue secrets,
and on a missing line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

ENVIRONMENT_TAG, DAYS_TAG = "ringfence:environment", "ringfence:rotation-days"
GRACE = timedelta(days=1)
"""Secrets Manager chooses the time of rotation within the day."""


def check(_event: object, _context: object) -> None:
    """Handle an event of Lambda."""
    # Not at the top: tests import this module without boto3's region.
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
            # The filter matches keys and values separately, and by prefix.
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
    """Return the time of the current value. LastChangedDate changes with every tag."""
    # AWS lists only the few versions with a label.
    for version in client.list_secret_version_ids(SecretId=secret)["Versions"]:
        if "AWSCURRENT" in version.get("VersionStages", []):
            return version["CreatedDate"]
    return None
