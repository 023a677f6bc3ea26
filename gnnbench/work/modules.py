"""Whole torch modules, and work that is not on tensors."""

from __future__ import annotations

from typing import Any

from gnnbench.steps import Kind, Size, Work


def module(
    op: str,
    *,
    flops: Size,
    bytes: Size,
    rows: Size,
    nonzeros: Size = 0,
    width: Size = 0,
    inner: Size = 0,
) -> Work:
    """One direction of a torch module trained by autograd: forward or backward.

    Bytes and flops come from the module's own formula; `op` names module and direction, such as
    "mlp_forward".
    """
    return Work(
        kind=Kind.MODULE,
        op=op,
        bytes=bytes,
        flops=flops,
        rows=rows,
        nonzeros=nonzeros,
        width=width,
        inner=inner,
    )


def launches(calls: Size) -> Work:
    """Operations so small that issuing them is all they cost."""
    return Work(kind=Kind.ELEMENTWISE, op="eager", calls=calls)


def repeated(done: Work, times: int) -> Work:
    """The same operation `times` times, one after another: sizes are those of all of them."""
    totals: dict[str, Any] = {
        name: times * getattr(done, name)
        for name in ("bytes", "flops", "rows", "nonzeros", "buffer_bytes", "calls")
    }
    return done._replace(**totals)


def host(op: str, *, rows: Size, bytes: Size = 0) -> Work:
    """Work of the host that is not on tensors: bookkeeping over `rows` items."""
    return Work(kind=Kind.HOST, op=op, rows=rows, bytes=bytes)
