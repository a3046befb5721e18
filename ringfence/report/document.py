"""The JSON form of a report, as `schemas/compliance.schema.json` describes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from ringfence import SCHEMAS
from ringfence.controls import catalogue as controls
from ringfence.controls.mappings import Coverage
from ringfence.report.model import Check, CheckIdentity, Report

SCHEMA = SCHEMAS / "compliance.schema.json"


class ReportError(ValueError):
    """A file is not a compliance report."""


def write(report: Report, path: Path) -> None:
    text = json.dumps(to_document(report), indent=1, ensure_ascii=False)
    path.write_text(f"{text}\n", encoding="utf-8")


def read(path: Path) -> Report:
    """Read a report. Raises `ReportError`, with one line, if the file is not one."""
    try:
        doc = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}; run the checks first") from None
    except ValueError as error:
        raise ReportError(f"{path} is not JSON: {error}") from None
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    error = next(Draft202012Validator(schema).iter_errors(doc), None)
    if error:
        raise ReportError(f"{path} is not a compliance report: {error.json_path}: {error.message}")
    return _from_document(doc)


def to_document(report: Report) -> dict[str, Any]:
    counts = report.counts
    document: dict[str, Any] = {
        "format": 1,
        "ringfence": report.version,
        "environment": report.environment,
        "stage": report.stage,
        "measurement": report.measurement,
        "time": report.time.isoformat(timespec="seconds"),
        "seconds": round(report.seconds, 1),
        "partial": report.partial,
        "hosts": list(report.hosts),
        "rate": counts.rate,
        "passed": counts.passed,
        "failed": counts.failed,
        "not_applicable": counts.not_applicable,
        "not_verified": counts.not_verified,
        "controls": report.matrix,
        "frameworks": {each.framework.id: _coverage(each) for each in report.coverage},
        "checks": [_check(check) for check in report.checks],
    }
    if report.before:
        document["before"] = to_document(replace(report.before, before=None))
    return document


def _coverage(coverage: Coverage) -> dict[str, Any]:
    return {
        "version": coverage.framework.version,
        **({"level": coverage.level} if coverage.framework.levels else {}),
        **{standing: len(found) for standing, found in coverage.statements.items()},
    }


def _check(check: Check) -> dict[str, Any]:
    identity = check.identity
    optional = {"case": identity.case, "why": identity.why, "message": check.message}
    return {
        "control": identity.control,
        "host": identity.host,
        "check": identity.check,
        "outcome": check.outcome,
        **{key: value for key, value in optional.items() if value},
        "seconds": round(check.seconds, 3),
    }


def _from_document(doc: Mapping[str, Any]) -> Report:
    return Report(
        environment=doc["environment"],
        stage=doc["stage"],
        measurement=doc["measurement"],
        time=datetime.fromisoformat(doc["time"]),
        seconds=doc["seconds"],
        version=doc["ringfence"],
        hosts=tuple(doc["hosts"]),
        partial=doc["partial"],
        catalogue=controls.load(),
        checks=tuple(
            Check(
                CheckIdentity(
                    c["control"], c["host"], c["check"], c.get("case", ""), c.get("why", "")
                ),
                c["outcome"],
                c.get("message", ""),
                c["seconds"],
            )
            for c in doc["checks"]
        ),
        before=_from_document(doc["before"]) if "before" in doc else None,
    )
