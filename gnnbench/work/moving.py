"""Copies, storage and communication: what the runtime counts from buffers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnnbench.steps import NO_ROOT, Ints, Kind, Size, Work, larger


def all_reduce_bytes(buffer_bytes: int, world_size: int) -> int:
    """Bytes a rank sends in a ring all-reduce: floor(2 (P-1) S / P).

    Source: fullgraph section 2.
    """
    return 2 * (world_size - 1) * buffer_bytes // world_size


# -- storage and copies ---


def to_host(size: Size) -> Work:
    """Copy bytes from the device to the host."""
    return Work(kind=Kind.COPY, op="copy_d2h", bytes=size)


def to_device(size: Size) -> Work:
    """Copy bytes from the host to the device."""
    return Work(kind=Kind.COPY, op="copy_h2d", bytes=size)


def read(size: Size, requests: Size = 1, op: str = "read") -> Work:
    """Read bytes from the disk in this number of requests."""
    return Work(kind=Kind.READ, op=op, bytes=size, rows=requests)


def write(size: Size, requests: Size = 1, op: str = "write") -> Work:
    """Write bytes to the disk in this number of requests."""
    return Work(kind=Kind.WRITE, op=op, bytes=size, rows=requests)


# -- communication ---


def all_reduce(elements: Size, element_bytes: int, world_size: int, *, width: Size = 0) -> Work:
    """Sum a buffer over `world_size` ranks: every rank has the sum."""
    size: Any = elements * element_bytes
    return Work(
        kind=Kind.ALL_REDUCE,
        op="all_reduce",
        bytes=all_reduce_bytes(size, world_size),
        rows=elements,
        width=width,
        buffer_bytes=size,
    )


def all_to_all(
    send: Ints,
    received: Size,
    unit_bytes: int,
    *,
    width: Size = 0,
    buffer_bytes: Size | None = None,
) -> Work:
    """Send units to each rank of the group and receive some from each.

    Args:
        send: units to each rank, int64 [P], or [ranks, P] for a class; 0 for the rank itself.
        received: units that come from other ranks.
        unit_bytes: bytes of a unit, such as a row.
        width: elements of a unit, where that is known.
        buffer_bytes: the larger of both buffers, if they hold more than what travels.
    """
    sent = send.sum(axis=-1)
    total: Size = int(sent) if send.ndim == 1 else sent
    if buffer_bytes is None:
        buffer_bytes = larger(total, received) * unit_bytes
    return Work(
        kind=Kind.ALL_TO_ALL,
        op="all_to_all",
        bytes=total * unit_bytes,
        rows=total * width if isinstance(width, int) and width else total,
        width=width,
        buffer_bytes=buffer_bytes,
        send=send,
        unit_bytes=unit_bytes,
    )


def broadcast(
    elements: Size, element_bytes: int, world_size: int, *, root: Size, is_root: bool | Any
) -> Work:
    """Copy the root's buffer to all others.

    Args:
        elements: of the buffer.
        root: the rank that sends.
        is_root: whether this rank is the root; a bool array [ranks] for a class.
    """
    size = elements * element_bytes
    sent: Size
    if isinstance(is_root, bool | np.bool_):
        sent = size * (world_size - 1) if is_root else 0
    else:
        sent = np.where(is_root, size * (world_size - 1), 0)
    return Work(
        kind=Kind.BROADCAST,
        op="broadcast",
        bytes=sent,
        rows=elements,
        buffer_bytes=size,
        root=root,
    )


def all_gather(elements: Size, element_bytes: int, world_size: int) -> Work:
    """Every rank has the blocks of all ranks; `elements` are those of its own block."""
    size = elements * element_bytes
    return Work(
        kind=Kind.ALL_GATHER,
        op="all_gather",
        bytes=(world_size - 1) * size,
        rows=elements,
        buffer_bytes=world_size * size,
    )


def reduce_scatter(elements: Size, element_bytes: int, world_size: int) -> Work:
    """Sum the ranks' buffers; every rank keeps one block of `elements` of the sum."""
    size = elements * element_bytes
    return Work(
        kind=Kind.REDUCE_SCATTER,
        op="reduce_scatter",
        bytes=(world_size - 1) * size,
        rows=elements,
        buffer_bytes=world_size * size,
    )


def send(elements: Size, element_bytes: int) -> Work:
    """Send a buffer to the other rank of the group."""
    size = elements * element_bytes
    return Work(kind=Kind.SEND, op="send", bytes=size, rows=elements, buffer_bytes=size)


def recv(elements: Size, element_bytes: int) -> Work:
    """Receive a buffer from the other rank of the group."""
    size = elements * element_bytes
    return Work(kind=Kind.RECV, op="recv", rows=elements, buffer_bytes=size)


def barrier() -> Work:
    """Wait for all ranks of the group."""
    return Work(kind=Kind.BARRIER, op="barrier", root=NO_ROOT)
