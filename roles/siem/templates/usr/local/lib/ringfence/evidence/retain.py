"""Compress complete files of the record and delete those past their retention; runs daily."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import store

COMPLETE_AFTER = timedelta(days=2)


def retain(directory: Path, retention: dict[str, int], today: date) -> None:
    longest = max(retention.values())
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        # Seals, and hosts that are no longer declared: the longest retention.
        oldest = today - timedelta(days=retention.get(folder.name, longest))
        complete = today - COMPLETE_AFTER
        for path in store.days(folder)[:-1]:  # the chain continues from the last file
            day = date.fromisoformat(store.day_of(path))
            if day < oldest:
                path.unlink()
            elif day <= complete and path.suffix == ".jsonl":
                compress(path)


def compress(path: Path) -> None:
    staged = path.with_name(f".{path.name}.new")
    with path.open("rb") as source, staged.open("wb") as target:
        with gzip.open(target, "wb") as packed:
            shutil.copyfileobj(source, packed)
        target.flush()
        os.fsync(target.fileno())
    staged.replace(path.with_name(f"{path.name}.gz"))
    path.unlink()


def main() -> None:
    os.umask(0o027)
    settings = json.loads(Path(sys.argv[1]).read_text())
    retention = {source["name"]: source["days"] for source in settings["sources"]}
    try:
        retain(Path(settings["directory"]), retention, datetime.now(UTC).date())
    except OSError as error:
        sys.exit(f"<3>cannot apply the retention of the record: {error}")


if __name__ == "__main__":
    main()
