"""Generations: after SIGKILL at any moment the disk has the last commit, never a mixture.

A table lies in two files of one layout, so every block (a partition) has two slots. Writes go to
the slot that is not committed; a commit names the slot of every block in a new manifest, which
takes the place of the old one by a rename. Small tensors of the same moment are a file of their own
per generation. Whatever a manifest does not name is ignored, and removed at the next commit.

    manifest.json    generation, slots and checksums of the blocks, the tensors' file, progress
    rows-0.bin       slot 0 of every block
    rows-1.bin       slot 1
    tensors-7.bin    tensors of generation 7
    ledger.csv       rows of the committed periods, and perhaps more behind them

Cost: the table twice on the disk, a checksum of what is written, a flush of both files per commit.

Source: out-of-core reference section 11, invariants 23 and 27.
"""

from __future__ import annotations

import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gnnbench import atomic
from gnnbench.errors import DataError
from gnnbench_runtime.disk import Block, BlockFile, aligned_empty, bytes_of

SCHEMA = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What the files are cut into: a manifest of another layout is refused.

    Args:
        block_bytes: from one block to the next.
        sizes: bytes of every block.
    """

    block_bytes: int
    sizes: tuple[int, ...]


@dataclass(slots=True, kw_only=True)
class Manifest:
    """The last commit.

    Args:
        generation: number of the commit.
        slots, sums: of every block: the file it is in, and its CRC-32.
        tensors: names, types, shapes and places of the tensors in their file, and its CRC-32.
        ledger_bytes: of the ledger's committed part.
        progress: what the owner wants to know when it goes on.
    """

    generation: int
    slots: list[int] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)
    tensors: dict[str, Any] = field(default_factory=dict)
    ledger_bytes: int = 0
    progress: dict[str, Any] = field(default_factory=dict)


class SlottedFile:
    """A table of two slots per block, read and written as a `BlockFile` is, block by block.

    Args:
        folder: of the files.
        layout: of the blocks.
        manifest: of the last commit; None for a new table.
    """

    def __init__(self, folder: Path, layout: Layout, manifest: Manifest | None) -> None:
        self.layout, count = layout, len(layout.sizes)
        size = count * layout.block_bytes
        self._files = [
            BlockFile(folder / f"rows-{slot}.bin", size_bytes=size, writable=True)
            for slot in (0, 1)
        ]
        found = manifest or Manifest(generation=0, slots=[1] * count, sums=[0] * count)
        self._committed = np.array(found.slots, np.int64)
        self._current, self._sums = self._committed.copy(), np.array(found.sums, np.int64)

    def read(self, into: Block, offset: int) -> int:
        """Read the current slot of a block."""
        return self._files[self._current[self._block(offset)]].read(into, offset)

    def write(self, source: Block, offset: int) -> int:
        """Write a block to the slot that is not committed, which is its current one then."""
        block = self._block(offset)
        slot = 1 - self._committed[block]
        done = self._files[slot].write(source, offset)
        self._current[block], self._sums[block] = slot, zlib.crc32(bytes_of(source))
        return done

    def flush(self) -> tuple[list[int], list[int]]:
        """Bring everything to the disk; return slots and checksums for a manifest."""
        for file in self._files:
            file.flush()
        return self._current.tolist(), self._sums.tolist()

    def committed(self) -> None:
        """The current slots are those of the last manifest now."""
        self._committed[:] = self._current

    def verify(self) -> None:
        """Compare every block with its checksum. Raises DataError."""
        for number, size in enumerate(self.layout.sizes):
            block = aligned_empty((size,), np.uint8)
            file = self._files[self._committed[number]]
            file.read(block, number * self.layout.block_bytes)
            if zlib.crc32(block.data) != self._sums[number]:
                raise DataError(file.path, f"partition {number} does not fit its checksum")

    def _block(self, offset: int) -> int:
        number, rest = divmod(offset, self.layout.block_bytes)
        if rest:
            raise ValueError(f"blocks begin at multiples of {self.layout.block_bytes}")
        return number

    def close(self) -> None:
        """Close both files; they stay."""
        for file in self._files:
            file.close()


class Generations:
    """The commits of one run in a folder of its own.

    Args:
        folder: made if absent.
        layout: of the table; None where only tensors are trained.
    """

    def __init__(self, folder: Path, layout: Layout | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self._layout = folder, layout
        self.last = self._read()
        self.table: SlottedFile | None = None
        if layout is not None:
            self.table = SlottedFile(folder, layout, self.last)
            if self.last is not None:
                self.table.verify()

    def commit(
        self, tensors: dict[str, Tensor], progress: dict[str, Any], *, ledger: bytes = b""
    ) -> None:
        """Make the present state the one that survives.

        Args:
            tensors: small ones, on any device.
            progress: of the owner, as JSON.
            ledger: rows that have been written since the last commit.
        """
        before = self.last
        number = 0 if before is None else before.generation + 1
        slots, sums = ([], []) if self.table is None else self.table.flush()
        name = f"tensors-{number}.bin"
        content, index = _packed(tensors)
        atomic.write_bytes(self.folder / name, content)
        kept = 0 if before is None else before.ledger_bytes
        _append(self.folder / "ledger.csv", kept, ledger)
        made = Manifest(
            generation=number,
            slots=slots,
            sums=sums,
            tensors={"file": name, "crc": zlib.crc32(content), "index": index},
            ledger_bytes=kept + len(ledger),
            progress=progress,
        )
        fields = {name: getattr(made, name) for name in Manifest.__slots__}
        head = {"schema": SCHEMA, "layout": self._shape()}
        atomic.write_json(self.folder / _MANIFEST, {**head, **fields})
        _sync(self.folder)  # the rename itself
        self.last = made
        if self.table is not None:
            self.table.committed()
        for file in self.folder.glob("tensors-*.bin"):
            if file.name != name:
                file.unlink()

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the last commit. Raises DataError if their file is not what it was."""
        assert self.last is not None
        path = self.folder / self.last.tensors["file"]
        content = path.read_bytes() if path.exists() else b""
        if zlib.crc32(content) != self.last.tensors["crc"]:
            raise DataError(path, "does not fit its checksum")
        return _unpacked(content, self.last.tensors["index"])

    def ledger(self) -> bytes:
        """The committed part of the ledger."""
        assert self.last is not None
        path, size = self.folder / "ledger.csv", self.last.ledger_bytes
        content = path.read_bytes()[:size] if size else b""
        if len(content) < size:
            raise DataError(path, f"has {len(content)} bytes, {size} are committed")
        return content

    def _read(self) -> Manifest | None:
        path = self.folder / _MANIFEST
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            schema, shape = found.pop("schema"), found.pop("layout")
            manifest = Manifest(**found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(path, f"no manifest ({error}): remove the folder") from None
        if (schema, shape) != (SCHEMA, self._shape()):
            raise DataError(path, "is of another table: remove the folder")
        return manifest

    def _shape(self) -> list[int]:
        if self._layout is None:
            return []
        return [self._layout.block_bytes, *self._layout.sizes]

    def close(self) -> None:
        """Close the files; they stay."""
        if self.table is not None:
            self.table.close()


def _packed(tensors: dict[str, Tensor]) -> tuple[bytes, dict[str, Any]]:
    """Tensors one behind another, and where each of them is."""
    parts: list[bytes] = []
    index: dict[str, Any] = {}
    at = 0
    for name, tensor in tensors.items():
        array: NDArray[Any] = tensor.detach().cpu().numpy()
        parts.append(np.ascontiguousarray(array).tobytes())
        index[name] = {"type": str(array.dtype), "shape": list(array.shape), "at": at}
        at += len(parts[-1])
    return b"".join(parts), index


def _unpacked(content: bytes, index: dict[str, Any]) -> dict[str, Tensor]:
    found = {}
    for name, place in index.items():
        count = int(np.prod(place["shape"], dtype=np.int64))
        array = np.frombuffer(content, place["type"], count, place["at"])
        found[name] = torch.from_numpy(array.reshape(place["shape"]).copy())
    return found


def _append(path: Path, kept: int, more: bytes) -> None:
    """Put bytes behind the first `kept` of a file, and bring them to the disk."""
    with path.open("r+b" if path.exists() else "w+b") as file:
        file.truncate(kept)
        file.seek(kept)
        file.write(more)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
