"""Files that are not what their name says: packed, pointers, web pages, other encodings."""

from __future__ import annotations

from pathlib import Path

from gnnbench.errors import DataError

_UNPACK = "compressed content under a name that does not say so: unpack it, or name it {}"
_BEGINS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", _UNPACK.format("*.gz")),
    (b"BZh", _UNPACK.format("*.bz2")),
    (b"\xfd7zXZ\x00", _UNPACK.format("*.xz")),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first (unzstd)"),
    (b"PK\x03\x04", _UNPACK.format("*.zip")),
    (b"\x89HDF", "an HDF5 file: export the edges as csv"),
    (b"\xff\xfe", "UTF-16 text (by its byte order mark): save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text (by its byte order mark): save it as UTF-8"),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS in place of the file: fetch it with git lfs pull",
    ),
    (b"<!doctype html", "a web page, not data: download the file itself"),
    (b"<html", "a web page, not data: download the file itself"),
)
"""First bytes, in lower case where they are text, and what helps."""


def refuse_misnamed(path: Path | str, raw: bytes) -> None:
    """Raise DataError if a text file begins as no text table does.

    Args:
        path: for the message.
        raw: the first bytes, unpacked as the name says.
    """
    for begin, said in _BEGINS:
        if raw.startswith(begin) or (begin.isascii() and raw[:40].lower().startswith(begin)):
            raise DataError(path, said)
    if len(raw) >= 4 and raw[1:4:2] == b"\x00\x00" and raw[0] and raw[2]:
        raise DataError(path, "UTF-16 text (every second byte is 0): save it as UTF-8")
