"""A file mapped into memory: reads by page fault, counted, and pages dropped on demand.

The kernel reads one page per fault, as the mapping is advised to expect random access. Pages are
dropped from the page table (`madvise`) and from the page cache (`posix_fadvise`); what a later
access reads then comes from the disk. File systems in memory keep their pages: nothing is read
there, and no major fault is counted.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from gnnbench import work
from gnnbench.disk_limit import DiskLimit
from gnnbench.steps import Ints, Lane, Phase
from gnnbench_runtime.disk import Throttle
from gnnbench_runtime.recorder import Recorder

PAGE = mmap.PAGESIZE


class MappedFile:
    """The content of a file as an array that is read from the disk page by page.

    The mapping is shared and never written. It is no part of the anonymous memory that caps limit.

    Args:
        path: of a file of whole pages; may be unlinked afterwards.
        recorder: of steps.
        limit: of the disk.
    """

    def __init__(self, path: Path, recorder: Recorder, limit: DiskLimit | None = None) -> None:
        self._recorder, self._throttle = recorder, Throttle(limit or DiskLimit())
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._map = mmap.mmap(self._file, os.fstat(self._file).st_size)
        self._map.madvise(mmap.MADV_RANDOM)
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
        self._first: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)[::PAGE]
        self.major_faults = 0
        """Page faults of `touch` that the kernel had to read a page for."""

    def array(self, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The head of the file as an array; shares the mapping."""
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(self._map, dtype, count).reshape(shape)

    def touch(self, name: str, pages: Ints, *, phase: Phase) -> None:
        """Read a byte of each page, rising: one step of kind READ, a request per page."""
        done = work.read(len(pages) * PAGE, len(pages))
        with self._recorder.step(name, done, phase=phase, lane=Lane.DISK):
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
            with self._throttle.transfer(len(pages) * PAGE, len(pages)):
                self._first[pages]
            self.major_faults += resource.getrusage(resource.RUSAGE_THREAD).ru_majflt - before

    def drop(self, pages: Ints) -> None:
        """Drop pages, distinct and rising, from the page table and the page cache."""
        for start, count in _runs(pages):
            # Mapped pages do not leave the page cache: the page table comes first.
            self._map.madvise(mmap.MADV_DONTNEED, start * PAGE, count * PAGE)
            os.posix_fadvise(self._file, start * PAGE, count * PAGE, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the file. Its memory stays mapped while an array of it lives."""
        if self._file < 0:
            return
        del self._first
        with contextlib.suppress(BufferError):  # an array of it lives: unmapped with the last one
            self._map.close()
        os.close(self._file)
        self._file = -1

    def __enter__(self) -> MappedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


def _runs(pages: Ints) -> list[tuple[int, int]]:
    """Runs of neighbouring pages: (first, count)."""
    if not len(pages):
        return []
    first = np.flatnonzero(np.diff(pages, prepend=pages[0] - 2) != 1)
    counts = np.diff(np.append(first, len(pages)))
    return list(zip(pages[first].tolist(), counts.tolist(), strict=True))
