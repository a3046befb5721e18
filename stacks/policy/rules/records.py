"""Records that last, that show changes, and that something looks at (MON-01, MON-03)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .rule import Properties, is_true

LOG_GROUP = "aws:cloudwatch/logGroup:LogGroup"
TRAIL = "aws:cloudtrail/trail:Trail"
RECORDER = "aws:cfg/recorderStatus:RecorderStatus"
RECORDS = (RECORDER, TRAIL)

OFF: Mapping[str, tuple[str, object]] = {
    "aws:guardduty/detector:Detector": ("enable", False),
    "aws:guardduty/detectorFeature:DetectorFeature": ("status", "DISABLED"),
    "aws:cloudwatch/metricAlarm:MetricAlarm": ("actionsEnabled", False),
}
"""Values that turn a detection off."""


def kept_forever(_: str, properties: Properties) -> Iterator[str]:
    """CloudWatch keeps what has no time for ever, which no class of data asks for."""
    days = properties.get("retentionInDays")
    if days is None or days == 0:
        yield "retentionInDays is absent: the log is kept forever"


def incomplete(kind: str, properties: Properties) -> Iterator[str]:
    if kind == RECORDER:
        if not is_true(properties.get("isEnabled")):
            yield "isEnabled is not true"
        return
    for name in ("isMultiRegionTrail", "enableLogFileValidation"):
        if not is_true(properties.get(name)):
            yield f"{name} is not true"
    if properties.get("enableLogging") is False:
        yield "enableLogging is false"


def turned_off(kind: str, properties: Properties) -> Iterator[str]:
    name, off = OFF[kind]
    if properties.get(name) == off:
        yield f"{name} turns it off"
