"""Sizes as people write them: "2 GB", "512 MiB"."""

from __future__ import annotations

import re

from gnnbench.errors import SpecError

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def size_bytes(text: str) -> int:
    """Bytes of a size such as "2 GB" (10^9) or "2GiB" (2^30). Raises SpecError."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].lower() not in _UNITS:
        raise SpecError(f"found {text!r}, expected a size such as '2 GB' or '512 MiB'")
    return round(float(found[1]) * _UNITS[found[2].lower()])
