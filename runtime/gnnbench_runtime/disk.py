"""The disk: the only place that reads and writes blocks of data for training.

Files are read and written by position, straight into and out of buffers that exist already, and
without the page cache where the file system allows that: what a run reads must come from the disk,
as it does for data that is larger than memory. `BlockFile.method` says how: "O_DIRECT", or
"fadvise", which drops pages after use (`posix_fadvise`, after `fdatasync` for writes).

    file = BlockFile(folder / "rows.bin", size_bytes=rows * row_bytes, writable=True)
    slot = torch.from_numpy(aligned_empty((count, width), np.float32))
    disk.read("fetch/rows", file, [(slot, first * row_bytes)], phase=Phase.FETCH)

`Disk` records each call as one step, whose bytes are those of the buffers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from gnnbench import work
from gnnbench.disk_limit import DiskLimit
from gnnbench.errors import DataError
from gnnbench.steps import Lane, Phase
from gnnbench_runtime.recorder import Recorder

ALIGNMENT = 4096
"""O_DIRECT wants addresses, offsets and lengths that are multiples of so many bytes."""

Block = torch.Tensor | npt.NDArray[Any]
Piece = tuple[Block, int]
"""A buffer, and the offset in the file that it is read from or written to. One request each."""


def aligned_empty(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array whose memory begins at a multiple of ALIGNMENT; `torch.from_numpy` shares it."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def padded(size: int) -> int:
    """The size rounded up to a multiple of ALIGNMENT, so that a block can be moved by O_DIRECT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


class BlockFile:
    """A file on the disk, read and written by position.

    Requests of unaligned buffers, offsets or lengths take the page cache, and drop their pages
    afterwards. Several threads may use one file.

    Args:
        path: of the file; made if absent and `writable`.
        size_bytes: to which a writable file is grown; 0 leaves it as it is.
        writable: whether it may be written.
        direct: whether to try O_DIRECT.

    Raises:
        DataError: the file cannot be opened.
    """

    def __init__(
        self, path: Path, *, size_bytes: int = 0, writable: bool = False, direct: bool = True
    ) -> None:
        self.path = path
        mode = os.O_RDWR | os.O_CREAT if writable else os.O_RDONLY
        try:
            self._cached = os.open(path, mode | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DataError(path, f"cannot open: {error.strerror}") from error
        if self.size_bytes < size_bytes:
            os.posix_fallocate(self._cached, 0, size_bytes)
        # Reading ahead would move bytes that nobody asked for.
        os.posix_fadvise(self._cached, 0, 0, os.POSIX_FADV_RANDOM)
        self._direct = self._open_direct(mode) if direct else -1
        self.drop()

    def _open_direct(self, mode: int) -> int:
        """A descriptor that bypasses the page cache; -1 where the file system has none."""
        flag = getattr(os, "O_DIRECT", 0)
        try:
            return os.open(self.path, (mode & ~os.O_CREAT) | flag | os.O_CLOEXEC) if flag else -1
        except OSError:
            return -1

    @property
    def method(self) -> str:
        """How the page cache is kept out: "O_DIRECT" or "fadvise"."""
        return "O_DIRECT" if self._direct >= 0 else "fadvise"

    @property
    def size_bytes(self) -> int:
        return os.fstat(self._cached).st_size

    def read(self, into: Block, offset: int) -> int:
        """Fill a buffer from a place of the file; return its bytes.

        Raises:
            DataError: the file ends before the buffer is full.
        """
        view = bytes_of(into)
        self._move(os.preadv, view, offset)
        return len(view)

    def write(self, source: Block, offset: int) -> int:
        """Write a buffer to a place of the file and out of the page cache; return its bytes."""
        view = bytes_of(source)
        self._move(os.pwritev, view, offset, written=True)
        return len(view)

    def put(self, source: Block, offset: int) -> None:
        """Write a buffer of any length through the page cache, without waiting for the disk.

        Call `drop` when everything is written: pages in the page cache would be read from there.
        """
        view, done = bytes_of(source), 0
        while done < len(view):
            done += os.pwritev(self._cached, [view[done:]], offset + done)

    def _move(
        self, call: Callable[..., int], view: memoryview, offset: int, *, written: bool = False
    ) -> None:
        descriptor, done = self._descriptor(view, offset), 0
        while done < len(view):
            moved = call(descriptor, [view[done:]], offset + done)
            if moved == 0:
                end = offset + len(view)
                raise DataError(self.path, f"ends at byte {self.size_bytes}, a block at byte {end}")
            done += moved
            if moved % ALIGNMENT:
                descriptor = self._cached  # what is left is not aligned
        if descriptor == self._cached:
            if written:
                os.fdatasync(self._cached)
            os.posix_fadvise(self._cached, offset, len(view), os.POSIX_FADV_DONTNEED)

    def _descriptor(self, view: memoryview, offset: int) -> int:
        if self._direct < 0 or offset % ALIGNMENT or len(view) % ALIGNMENT:
            return self._cached
        address = np.frombuffer(view, np.uint8).ctypes.data if len(view) else 0
        return self._cached if address % ALIGNMENT else self._direct

    def drop(self) -> None:
        """Take the file's pages out of the page cache, those not yet written included."""
        os.fdatasync(self._cached)
        os.posix_fadvise(self._cached, 0, 0, os.POSIX_FADV_DONTNEED)

    def flush(self) -> None:
        """Wait until everything that was written is on the disk."""
        os.fdatasync(self._cached)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        for descriptor in (self._direct, self._cached):
            if descriptor >= 0:
                os.close(descriptor)
        self._direct = self._cached = -1

    def __enter__(self) -> BlockFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


class Positioned(Protocol):
    """What is read and written by position: a `BlockFile`, or what stands for several of them."""

    def read(self, into: Block, offset: int) -> int: ...

    def write(self, source: Block, offset: int) -> int: ...


_LATE_MOST_S = 0.1
"""Lateness that later transfers make up for, at most: of a process that was stopped."""


class Throttle:
    """Holds transfers back, as a disk of some bytes and requests per second would take them.

    The transfers of all threads queue up for one disk: each takes its time behind the one before,
    or as long as the real disk needs, whichever is longer. A sleep ends some tens of microseconds
    late, more on a busy machine. The next transfer of a thread begins as if it had ended in time:
    else a disk of 3,000 requests per second would be slower than its limit by a fifth.

    Args:
        limit: 0 and 0 hold nothing back.
    """

    def __init__(self, limit: DiskLimit) -> None:
        self._limit, self._lock, self._free_s = limit, threading.Lock(), 0.0
        self._late = threading.local()

    @contextmanager
    def transfer(self, size: int, requests: int = 1) -> Iterator[None]:
        """A block that takes at least the time of a transfer."""
        needed = self._limit.seconds(size, requests)
        if not needed:
            yield
            return
        begun = perf_counter()
        with self._lock:
            start = max(self._free_s, begun - getattr(self._late, "seconds", 0.0))
            self._free_s = ends = start + needed
        yield
        # Time that the real disk takes is no lateness of a sleep.
        ends = max(ends, min(start, begun) + perf_counter() - begun)
        while (left := ends - perf_counter()) > 0:
            sleep(left)
        self._late.seconds = min(perf_counter() - ends, _LATE_MOST_S)


class Disk:
    """A rank's reads and writes, each call one recorded step of kind READ or WRITE.

    The bytes of a step are those of its buffers and its requests are its pieces, by `work.read` and
    `work.write`. Threads of their own read ahead on numbered lanes (`Lane.DISK.at(1)`).
    """

    def __init__(self, recorder: Recorder, limit: DiskLimit | None = None) -> None:
        self._recorder, self._throttle = recorder, Throttle(limit or DiskLimit())

    def read(
        self,
        name: str,
        file: Positioned,
        pieces: Sequence[Piece],
        *,
        phase: Phase,
        lane: Lane = Lane.DISK,
        layer: int = -1,
    ) -> int:
        """Fill the buffers, one request after the other; return the bytes of all."""
        size = sum(_size(block) for block, _ in pieces)
        done = work.read(size, len(pieces))
        with self._recorder.step(name, done, phase=phase, lane=lane, layer=layer):
            for block, offset in pieces:
                with self._throttle.transfer(_size(block)):
                    file.read(block, offset)
        return size

    def write(
        self,
        name: str,
        file: Positioned,
        pieces: Sequence[Piece],
        *,
        phase: Phase,
        lane: Lane = Lane.DISK,
        layer: int = -1,
    ) -> int:
        """Write the buffers, one request after the other; return the bytes of all."""
        size = sum(_size(block) for block, _ in pieces)
        done = work.write(size, len(pieces))
        with self._recorder.step(name, done, phase=phase, lane=lane, layer=layer):
            for block, offset in pieces:
                with self._throttle.transfer(_size(block)):
                    file.write(block, offset)
        return size


def _size(block: Block) -> int:
    if isinstance(block, torch.Tensor):
        return block.numel() * block.element_size()
    return int(block.nbytes)


def bytes_of(block: Block) -> memoryview:
    """The memory of a buffer. Raises ValueError if it is not on the host or has gaps."""
    array: Any = block
    if isinstance(block, torch.Tensor):
        if block.device.type != "cpu":
            raise ValueError(f"blocks are read into host memory, found a tensor on {block.device}")
        array = block.detach().numpy()
    if not array.flags.c_contiguous:
        raise ValueError(f"blocks are contiguous, found strides {array.strides}")
    return memoryview(array.reshape(-1).view(np.uint8)) if array.size else memoryview(b"")
