"""Arrays that are files mapped into memory: their resident pages can be given back."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import Any


def forget_mapped_pages(arrays: Iterable[Any]) -> None:
    """Release the resident pages of memory-mapped arrays; a later access reads them again.

    Arrays in ordinary memory, and None, are left alone. Pages that were written reach the
    file later.
    """
    for array in arrays:
        mapped = getattr(array, "_mmap", None)
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            # The pages stay in the page cache: reading them again is no disk access.
            mapped.madvise(mmap.MADV_DONTNEED)
