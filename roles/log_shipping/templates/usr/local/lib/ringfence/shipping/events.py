"""Convert journal entries to the structured events that leave the host: pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

LARGEST_EVENT = 64 * 1024
LARGEST_MESSAGE_WHEN_CUT = 16 * 1024

NAMES = {
    "MESSAGE": "message",
    "SYSLOG_IDENTIFIER": "identifier",
    "_SYSTEMD_UNIT": "unit",
    "_TRANSPORT": "transport",
    "_EXE": "executable",
    "_BOOT_ID": "boot",
}
NUMBERS = {
    "PRIORITY": "priority",
    "SYSLOG_FACILITY": "facility",
    "_PID": "pid",
    "_UID": "uid",
    "_GID": "gid",
    "_AUDIT_LOGINUID": "login_uid",
    "_AUDIT_SESSION": "session",
}
# Fields that the event already contains, or that are useless outside the host.
LEFT_OUT = frozenset(
    {
        "_HOSTNAME",
        "_MACHINE_ID",
        "_CAP_EFFECTIVE",
        "_RUNTIME_SCOPE",
        "_SOURCE_REALTIME_TIMESTAMP",
        "_SOURCE_MONOTONIC_TIMESTAMP",
        "_SOURCE_BOOTTIME_TIMESTAMP",
        "_STREAM_ID",
        "_SYSTEMD_CGROUP",
        "_SYSTEMD_INVOCATION_ID",
        "_SYSTEMD_SLICE",
        "SYSLOG_PID",
        "SYSLOG_RAW",
        "SYSLOG_TIMESTAMP",
    }
)
UNPRINTABLE = re.compile(r"[^!-~]")
DEFAULT_PRIORITY, DEFAULT_FACILITY = 6, 1


def from_entry(entry: Mapping[str, Any], host: str, stream: str, sequence: int) -> dict[str, Any]:
    """Build the event: known fields get plain names, all others stay unchanged under `fields`."""
    event: dict[str, Any] = {
        "time": timestamp(entry["__REALTIME_TIMESTAMP"]),
        "host": host,
        "stream": stream,
        "sequence": sequence,
    }
    fields: dict[str, Any] = {}
    for field, raw in entry.items():
        if field in LEFT_OUT or field.startswith("__"):
            continue
        value = _text(raw)
        if field in NAMES:
            event[NAMES[field]] = value
        elif field in NUMBERS and _is_number(value):
            event[NUMBERS[field]] = int(value)
        else:
            fields[field] = value
    event.setdefault("message", "")
    if fields:
        event["fields"] = fields
    return event


def message(event: Mapping[str, Any]) -> bytes:
    """Format an event as an RFC 5424 message with CEE JSON."""
    facility = _clamp(event.get("facility"), 23, DEFAULT_FACILITY)
    severity = _clamp(event.get("priority"), 7, DEFAULT_PRIORITY)
    identifier = event.get("identifier")
    name = UNPRINTABLE.sub("_", identifier)[:48] if isinstance(identifier, str) else ""
    header = (
        f"<{facility * 8 + severity}>1 {event['time']} {event['host']} "
        f"{name or '-'} {event.get('pid', '-')} - - @cee: "
    )
    return header.encode() + _encode(event)


def timestamp(microseconds: int) -> str:
    moment = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{microseconds % 1_000_000:06d}Z"


def _encode(event: Mapping[str, Any]) -> bytes:
    """Encode as compact JSON; shorten an event above the limit, and note its full size."""
    whole = _json(event)
    if len(whole) <= LARGEST_EVENT:
        return whole
    cut = {key: value for key, value in event.items() if key != "fields"}
    for key, value in cut.items():
        if not isinstance(value, int | bool):
            limit = LARGEST_MESSAGE_WHEN_CUT if key == "message" else 256
            cut[key] = str(value)[:limit]
    return _json(cut | {"cut_from_bytes": len(whole)})


def _json(event: Mapping[str, Any]) -> bytes:
    text = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
    # DEL is the only control character that JSON does not escape; syslog requires it.
    return text.replace("\x7f", "\\u007f").encode("utf-8", "backslashreplace")


def _is_number(value: Any) -> bool:
    """Whether a field is a short number; any account can write arbitrary text into it."""
    return isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 20


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else str(value)


def _clamp(value: object, highest: int, default: int) -> int:
    return value if isinstance(value, int) and 0 <= value <= highest else default
