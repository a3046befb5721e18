"""Inspection of JSON-RPC messages for personal data and secrets, treated by data class.

Whole messages go in and come out. Every string is read, the names of members and numbers too, text
inside Base64 blobs, and what is split over content blocks or over messages of a stream. If the
search fails, for whatever reason, the message is withheld.

Known limits: names and addresses of people have no form, so they are not found. Archives, images
and documents are not opened. Reversed or enciphered text passes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ringfence.gateway.inspection import messages
from ringfence.gateway.inspection.detector import Detector
from ringfence.gateway.inspection.masking import Masking, Redaction
from ringfence.gateway.inspection.messages import Leaf
from ringfence.gateway.inspection.search import search, search_copies
from ringfence.gateway.refusals import Refusal

Action = Literal["pass", "flag", "redact", "block"]
INLINE_BYTES = 16 * 1024
"""Bytes of a message, on the wire. Searching a hostile one of this size takes some 50 ms."""

_FAILED = "inspection_failed"
_SCHEMA = "output_schema"


@dataclass(frozen=True)
class Inspected:
    document: dict[str, Any]
    """The message to pass on; for "block" an error response without anything of the result."""
    findings: Mapping[str, int]
    """Number of values by type. Never values."""
    action: Action

    @property
    def refusal(self) -> Refusal | None:
        """The answer to the caller for "block"."""
        return Refusal("result_withheld") if self.action == "block" else None


class Inspector:
    """Raises `ValueError` for a key below 32 bytes when there is something to mask."""

    def __init__(
        self,
        classes: Mapping[str, Action],
        mask: bool,
        key: bytes,
        *,
        arguments: Action = "flag",
        detector: Detector | None = None,
    ) -> None:
        self._classes = dict(classes)
        self._mask = mask
        self._arguments: Action = arguments
        self._replace = Masking(key) if mask else Redaction()
        self._detector = detector or Detector()

    def action(self, data_class: str) -> Action:
        """The action for a finding in this data class. An unconfigured class blocks."""
        action = self._classes.get(data_class, "block")
        # Outside production personal data of every class is masked, unless it is blocked.
        return "redact" if self._mask and action != "block" else action

    def inspect_result(
        self,
        document: dict[str, Any],
        data_class: str,
        output_schema_check: Callable[[Any], bool] | None = None,
    ) -> Inspected:
        """Inspect a response or notification of a server.

        `output_schema_check` says whether a `structuredContent` satisfies the tool's output schema;
        a masked one that does not is withheld.
        """
        action = self.action(data_class)
        return self.inspect_together([document], action, [output_schema_check], "")[0][0]

    def inspect_arguments(self, params: Mapping[str, Any], data_class: str) -> Inspected:
        """Inspect what a caller sends, by the action for arguments, whatever the class.

        "redact" changes what the tool does; "flag" is the rule.
        """
        action = self.argument_action(data_class)
        return self.as_arguments(
            self.inspect_together([{"params": dict(params)}], action, [None], "")[0][0]
        )

    def argument_action(self, data_class: str) -> Action:
        return self._arguments if data_class in self._classes else "block"

    def as_arguments(self, inspected: Inspected) -> Inspected:
        """Take arguments out of the message in which they were inspected."""
        if inspected.action == "block":
            return inspected
        return Inspected(inspected.document["params"], inspected.findings, inspected.action)

    def spans(self, text: str) -> list[tuple[str, int, int]]:
        """Type, start and end of each value that would be replaced in a text."""
        leaf = Leaf(text)
        search([leaf], "", self._detector)
        return [(found.type, found.start, found.end) for found in leaf.replacements]

    def text(self, document: Mapping[str, Any]) -> str:
        """The texts of a message that a reader joins."""
        return _text(messages.read(document, self._detector))

    def inspect_together(
        self,
        documents: Sequence[dict[str, Any]],
        action: Action,
        output_schema_checks: Sequence[Callable[[Any], bool] | None],
        before: str,
    ) -> tuple[list[Inspected], str]:
        """Inspect consecutive messages after the text `before`; return their own text too."""
        done, text = self.search(documents, action, before)
        return conforming(documents, done, output_schema_checks), text

    def search(
        self, documents: Sequence[dict[str, Any]], action: Action, before: str
    ) -> tuple[list[Inspected], str]:
        """`inspect_together` without the output schemas."""
        try:
            return self._inspect(documents, action, before)
        except Exception:
            # A message that could not be searched is not passed on, whatever the reason.
            return [_blocked(document, {_FAILED: 1}) for document in documents], ""

    def _inspect(
        self, documents: Sequence[dict[str, Any]], action: Action, before: str
    ) -> tuple[list[Inspected], str]:
        parts = [messages.read(document, self._detector) for document in documents]
        leaves = parts[0] if len(parts) == 1 else [leaf for part in parts for leaf in part]
        search(leaves, before, self._detector)
        text = _text(leaves)
        if not any(leaf.replacements for leaf in leaves):
            return [Inspected(document, {}, "pass") for document in documents], text
        if action == "redact":
            search_copies(leaves)
        done = [
            self._treated(document, part, action)
            for document, part in zip(documents, parts, strict=True)
        ]
        return done, text

    def _treated(
        self, document: dict[str, Any], leaves: Sequence[Leaf], action: Action
    ) -> Inspected:
        found = [replacement for leaf in leaves for replacement in leaf.replacements]
        findings = Counter(replacement.type for replacement in found if not replacement.is_rest)
        if not found:
            return Inspected(document, {}, "pass")
        if action in ("pass", "flag"):
            return Inspected(document, findings, action)
        if action == "block":
            return _blocked(document, findings)
        return Inspected(messages.rewrite(document, leaves, self._replace), findings, "redact")


def _blocked(document: Mapping[str, Any], findings: Mapping[str, int]) -> Inspected:
    refusal = Refusal("result_withheld")
    answer: dict[str, Any] = {
        "jsonrpc": "2.0",
        "id": document.get("id"),
        "error": {"code": refusal.code, "message": refusal.message},
    }
    return Inspected(answer, findings, "block")


def conforming(
    documents: Sequence[Mapping[str, Any]],
    done: Sequence[Inspected],
    output_schema_checks: Sequence[Callable[[Any], bool] | None],
) -> list[Inspected]:
    """Withhold each masked result that its output schema does not allow."""
    return [
        inspected
        if check is None
        or inspected.action != "redact"
        or _still_valid(document, inspected.document, check)
        else _blocked(document, {**inspected.findings, _SCHEMA: 1})
        for document, inspected, check in zip(documents, done, output_schema_checks, strict=True)
    ]


def _text(leaves: Sequence[Leaf]) -> str:
    return "".join([leaf.text for leaf in leaves if leaf.block])


def _still_valid(
    document: Mapping[str, Any], masked: Mapping[str, Any], check: Callable[[Any], bool]
) -> bool:
    result, new = document.get("result"), masked.get("result")
    if not isinstance(result, Mapping) or not isinstance(new, Mapping):
        return True
    old = result.get("structuredContent")
    if "structuredContent" not in result or old == new["structuredContent"]:
        return True
    return check(new["structuredContent"])
