"""The program of the inspection worker's process: it searches messages until its input ends.

Frames come on standard input and answers go to standard output, each JSON behind its length. The
first frame has the settings with the masking key, which so is in no argument and no environment.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import orjson

from ringfence.gateway.inspection.inspector import Inspector
from ringfence.gateway.inspection.streams import TAIL

LENGTH_BYTES = 8


def main() -> None:
    # The process ends with the gateway, which finishes its calls when it has to stop.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # Where memory runs out, this is the process to do without.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    settings = orjson.loads(_read(sys.stdin.buffer) or b"null")
    if settings is None:
        return
    inspector = Inspector(settings["classes"], settings["mask"], bytes.fromhex(settings["key"]))
    _write(sys.stdout.buffer, b"")
    while (frame := _read(sys.stdin.buffer)) is not None:
        task = orjson.loads(frame)
        documents = task["documents"]
        done, text = inspector.search(documents, task["action"], task["before"])
        answers = [
            (
                None if inspected.document is document else inspected.document,
                inspected.findings,
                inspected.action,
            )
            for document, inspected in zip(documents, done, strict=True)
        ]
        _write(sys.stdout.buffer, orjson.dumps({"done": answers, "text": text[-TAIL:]}))


def _read(source: BinaryIO) -> bytes | None:
    head = source.read(LENGTH_BYTES)
    if len(head) < LENGTH_BYTES:
        return None
    length = int.from_bytes(head, "big")
    frame = source.read(length)
    return frame if len(frame) == length else None


def _write(sink: BinaryIO, frame: bytes) -> None:
    sink.write(len(frame).to_bytes(LENGTH_BYTES, "big"))
    sink.write(frame)
    sink.flush()


if __name__ == "__main__":
    main()
