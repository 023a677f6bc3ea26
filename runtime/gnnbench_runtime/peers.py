"""Failures of other ranks, as a collective reports them."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist

from gnnbench.errors import RunFailed

_LOST = ("connection", "timed out", "timeout", "broken pipe", "socket", "nccl", "remote process")


class PeerLost(RunFailed):
    """A collective broke because another rank went away: a consequence, not the cause."""


def guarded(work: Callable[[], object]) -> None:
    """Call a collective; a lost peer becomes `PeerLost`."""
    try:
        work()
    except RuntimeError as error:
        said = str(error).lower()
        # torch reports a lost peer by plain RuntimeErrors of several backends; their texts are all
        # there is.
        if isinstance(error, dist.DistError) or any(word in said for word in _LOST):
            line = str(error).strip().splitlines()[0]
            raise PeerLost(f"a collective lost another rank ({line[:200]})") from error
        raise
