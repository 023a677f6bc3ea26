"""Files that appear whole or not at all: a temporary sibling, then a rename."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gnnbench import owner


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that takes the place of `path` when the block ends well."""
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=owner.TEMPORARY
    )
    try:
        owner.lock(handle)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file; readers see the old one or the new one, never half of either."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, see `write_text`."""
    with whole(path) as file:
        file.write(content)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, see `write_text`. Raises ValueError for nan and infinity."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False, default=str) + "\n")
