"""Results of several JSON parsers for a document, in one notation."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import pydantic_core

LONG = 200
"""Longest value that is shown; for a longer one, its length is shown."""

# As a server on web standards reads a request: `await request.json()`.
_NODE = """
const bodies = JSON.parse(require('fs').readFileSync(0, 'utf8'));
const show = (key, value) =>
  typeof value === 'number' && !Number.isFinite(value) ? `<${value}>` : value;
process.stdout.write(JSON.stringify(bodies.map((each) => {
  let value;
  try {
    value = JSON.parse(new TextDecoder().decode(Buffer.from(each, 'base64')));
  } catch { return 'error'; }
  try { return JSON.stringify(value, show); } catch { return 'unprintable'; }
})));
"""


def body(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of an entry of `documents/json.yaml`."""
    if "hex" in document:
        return bytes.fromhex(document["hex"])
    if "repeat" in document:
        return b"".join(text.encode() * times for text, times in document["repeat"])
    return document["text"].encode()


def _shown(parse: Callable[[bytes], Any]) -> Callable[[bytes], str]:
    def read(text: bytes) -> str:
        try:
            value = parse(text)
        except (ValueError, RecursionError):
            return "error"
        return _short(json.dumps(_without_infinity(value), separators=(",", ":")))

    return read


def _without_infinity(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        return {"inf": "<Infinity>", "-inf": "<-Infinity>", "nan": "<NaN>"}[str(value)]
    if isinstance(value, dict):
        return {name: _without_infinity(each) for name, each in value.items()}
    return [_without_infinity(each) for each in value] if isinstance(value, list) else value


def _short(text: str) -> str:
    return text if len(text) <= LONG else f"{len(text)} characters"


PYTHON: Mapping[str, Callable[[bytes], str]] = {
    "json": _shown(json.loads),
    "orjson": _shown(orjson.loads),
    "pydantic_core": _shown(pydantic_core.from_json),
}

NODE = shutil.which("node")


def node(bodies: Sequence[bytes]) -> list[str]:
    """Parse with Node, which must be installed; return numbers as Node would serialise them."""
    assert NODE
    done = subprocess.run(
        [NODE, "-e", _NODE],
        input=json.dumps([base64.b64encode(each).decode() for each in bodies]),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [_reprinted(each) for each in json.loads(done.stdout)]


def _reprinted(text: str) -> str:
    return text if text in ("error", "unprintable") else PYTHON["json"](text.encode())
