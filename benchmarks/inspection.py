"""Cost and findings of the inspection of results.

Alternatives in the same run: the Rust engine with its own detectors on the same messages, and
detect-secrets without its entropy plugins, if it is installed (it is not a dependency).
detect-secrets often reports only a part of a secret (three letters of a GitHub token); such a part
counts as found.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from typing import Any

from cpex_pii_filter.pii_filter_rust import PIIDetectorRust
from labelled_texts import Score, Span, load, scores
from scratch import report, say

from ringfence.gateway.inspection.detector import BUILT_IN
from ringfence.gateway.inspection.inspector import Inspector

OF_THE_ENGINE = {"driver_license": "driving_licence", "bsn": "national_id"}
OF_DETECT_SECRETS = {
    "AWS Access Key": "aws_access_key",
    "Basic Auth Credentials": "url_password",
    "GitHub Token": "github_token",
    "GitLab Token": "gitlab_token",
    "IPv4": "ip_address",
    "JSON Web Token": "jwt",
    "NPM tokens": "npm_token",
    "OpenAI Token": "openai_key",
    "Private Key": "private_key",
    "PyPI Token": "pypi_token",
    "Secret Keyword": "password",
    "SendGrid API Key": "sendgrid_key",
    "Slack Token": "slack_token",
    "Stripe Access Key": "stripe_key",
}


def main() -> None:
    inspector = Inspector({"internal": "redact"}, True, b"benchmark-key-of-thirty-two-bytes")
    bare = PIIDetectorRust({f"detect_{name}": True for name in BUILT_IN})
    detect_secrets = _detect_secrets()
    _quality(inspector, bare, detect_secrets)
    figures: dict[str, Any] = {}
    for name, message in _messages().items():
        ours = _microseconds(lambda m=message: inspector.inspect_result(m, "internal"))
        figures[f"{name}_microseconds"] = ours
        try:
            engine = _microseconds(lambda m=message: bare.process_nested(m, ""))
        except ValueError as refused:
            say(f"{name:28} {ours:10.1f} µs, engine: {refused}")
            continue
        say(f"{name:28} {ours:10.1f} µs, engine {engine:10.1f} µs, ratio {ours / engine:.2f}")
        figures[f"{name}_alternative_microseconds"] = engine
    if detect_secrets is not None:
        text = _messages()["typical"]["result"]["content"][0]["text"]
        figures["detect_secrets_microseconds"] = _microseconds(lambda: detect_secrets(text))
        say(f"detect-secrets, typical text {figures['detect_secrets_microseconds']:8.1f} µs")
    report(
        "inspection",
        {
            **figures,
            "alternative": "the Rust engine with its own detectors, no evasions, no pseudonyms",
            "ratio": figures["typical_microseconds"] / figures["typical_alternative_microseconds"],
        },
    )


def _messages() -> dict[str, dict[str, Any]]:
    order = {
        "id": "550e8400-e29b-41d4-a716-446655440000",
        "status": "shipped",
        "total": 129.95,
        "sku": "AB-1234",
        "at": "2026-11-24T13:57:02+00:00",
    }
    prose = (
        "The quick brown fox jumps over the lazy dog. Order 4711 left the warehouse on 24 November "
        "at 13:57 and will arrive within 3 days, unless it snows. "
    )
    personal = (
        "Customer John Doe, john.doe@example.com, (415) 555-2671, paid with 4111 1111 1111 1111. "
    )

    def result(text: str, structured: Any = None) -> dict[str, Any]:
        body: dict[str, Any] = {"content": [{"type": "text", "text": text}], "isError": False}
        if structured is not None:
            body["structuredContent"] = structured
        return {"jsonrpc": "2.0", "id": 1, "result": body}

    return {
        "typical": result(json.dumps([order] * 4)[:500]),
        "prose": result((prose * 4)[:500]),
        "structured": result(json.dumps(order), order),
        "personal": result(personal + (prose * 3)[: 500 - len(personal)]),
        "not_ascii": result(("Grüße aus Köln, 東京 und Łódź. " + prose * 4)[:500]),
        "mebibyte_of_prose": result((prose * 8000)[: 1 << 20]),
        "mebibyte_of_json": result(json.dumps([order] * 8000)[: 1 << 20]),
        "hundred_thousand_strings": result("-", [f"item {n}" for n in range(100_000)]),
    }


def _quality(
    inspector: Inspector,
    bare: PIIDetectorRust,
    detect_secrets: Callable[[str], set[Span]] | None,
) -> None:
    def ours(text: str) -> set[Span]:
        return set(inspector.spans(text))

    def engine(text: str) -> set[Span]:
        octets = text.encode()
        found: dict[str, list[dict[str, Any]]] = bare.detect(text)
        return {
            (
                OF_THE_ENGINE.get(kind, kind),
                len(octets[: hit["start"]].decode()),
                len(octets[: hit["end"]].decode()),
            )
            for kind, hits in found.items()
            for hit in hits
        }

    for name in ("labelled_texts.txt", "held_out_texts.txt"):
        texts = load(name)
        columns = {"ours": scores(texts, ours), "engine": scores(texts, engine)}
        if detect_secrets is not None:
            columns["detect-secrets"] = scores(texts, detect_secrets, whole=False)
        say(f"{name}, {len(texts)} texts: precision / recall " + ", ".join(columns))
        for kind in sorted({kind for column in columns.values() for kind in column}):
            cells = (column.get(kind, Score(0, 0, 0)) for column in columns.values())
            say(f"  {kind:18}" + "".join(f"{_cell(score):>22}" for score in cells))


def _cell(score: Score) -> str:
    if score.right + score.extra + score.missed == 0:
        return "-"
    precision = f"{score.precision:.2f}" if score.right + score.extra else "-"
    recall = f"{score.recall:.2f}" if score.right + score.missed else "-"
    return f"{precision} / {recall} ({score.right}+{score.extra}-{score.missed})"


def _detect_secrets() -> Callable[[str], set[Span]] | None:
    try:
        scan = importlib.import_module("detect_secrets.core.scan")
        settings = importlib.import_module("detect_secrets.settings")
        plugins = importlib.import_module("detect_secrets.core.plugins.util")
    except ImportError:
        return None
    names = [plugin.__name__ for plugin in plugins.get_mapping_from_secret_type_to_class().values()]
    chosen = [{"name": name} for name in names if "Entropy" not in name]
    settings.get_settings().configure_plugins(chosen)
    settings.get_settings().disable_filters(
        "detect_secrets.filters.heuristic.is_sequential_string",
        "detect_secrets.filters.heuristic.is_potential_uuid",
    )

    def find(text: str) -> set[Span]:
        found: set[Span] = set()
        for line in text.splitlines():
            for secret in scan.scan_line(line):
                value = secret.secret_value or ""
                start = text.find(value)
                kind = OF_DETECT_SECRETS.get(secret.type, secret.type or "")
                found.add((kind, start, start + len(value)))
        return found

    return find


def _microseconds(work: Callable[[], object]) -> float:
    """Return the processor time of one call: the best of five rounds of about 20 ms."""
    started = time.process_time()
    work()
    rounds = max(1, int(0.02 / max(time.process_time() - started, 1e-7)))
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        for _ in range(rounds):
            work()
        best = min(best, (time.process_time() - started) / rounds)
    return best * 1e6


if __name__ == "__main__":
    main()
