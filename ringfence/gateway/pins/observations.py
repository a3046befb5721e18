"""Observed definitions: files from which an operator approves pins."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ringfence.gateway.pins.definitions import canonical, definition_of
from ringfence.gateway.state import shared_files

OBSERVED_BYTES = 1 << 20
OBSERVED_TOOLS = 512

logger = logging.getLogger(__name__)


class Observations:
    """Writes the definitions that servers offer to files, which an operator fetches and reviews.

    One file per server, replaced as a whole, at most `OBSERVED_BYTES`; processes of one gateway
    may share the directory. A lost file delays a review, and affects no call.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written: dict[str, bytes] = {}

    def record(self, server: str, definitions: Iterable[Mapping[str, Any]]) -> bool:
        """Write the definitions of a server where they differ from the last ones.

        Return whether they were written. A failure is logged; the next listing tries again.
        """
        kept: list[dict[str, Any]] = []
        size = omitted = 0
        for entry in definitions:
            definition = definition_of(entry)
            size += len(canonical(definition))
            if size > OBSERVED_BYTES or len(kept) == OBSERVED_TOOLS:
                omitted += 1
            else:
                kept.append(definition)
        identity = hashlib.sha256(canonical([kept, omitted])).digest()
        if self._written.get(server) == identity:
            return False
        document = {
            "version": 1,
            "server": server,
            "seen": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "omitted": omitted,
            "tools": kept,
        }
        try:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            content = json.dumps(document, ensure_ascii=True).encode()
            shared_files.replace(self._directory / f"{server}.json", content, durable=False)
        except OSError as error:
            logger.warning(
                "definitions of %s were not left for review in %s: %s; make room there",
                *(server, self._directory, error.strerror),
            )
            return False
        self._written[server] = identity
        return True
