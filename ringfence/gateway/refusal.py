"""How a stage of the gateway says no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Refusal(Exception):  # noqa: N818
    """The answer is no."""

    status: int
    """HTTP status."""
    code: int
    """JSON-RPC error code."""
    reason: str
    """A word in snake case for audit and metrics, e.g. `header_mismatch`."""
    message: str
    """For the caller: no internals, no values of theirs."""
    data: dict[str, Any] | None = None
    """JSON-RPC `error.data`."""
    headers: tuple[tuple[str, str], ...] = ()
    """HTTP headers, e.g. WWW-Authenticate, Retry-After."""
