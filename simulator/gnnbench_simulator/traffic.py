"""Bytes of an all-to-all by the ranks and hosts that send and receive them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gnnbench.costs.facts import Floats


def through_one_loop(matrix: npt.NDArray[np.float64]) -> float:
    """Bytes of an even exchange that keeps gloo's event loops as busy as this one.

    A process reads and writes all its sockets in one thread, and on one host no wire limits either
    way: what is sent and what is received add up. An exchange one way is half of one both ways.
    """
    return float((matrix.sum(axis=1) + matrix.sum(axis=0)).max() / 2)


def busiest_rank(matrix: npt.NDArray[np.float64]) -> float:
    """Bytes that the rank with most to send, or to receive, sends or receives."""
    return float(max(matrix.sum(axis=1).max(), matrix.sum(axis=0).max()))


def busiest_host(matrix: Floats, hosts: npt.NDArray[np.intp]) -> float:
    """Bytes of the host that sends, or receives, most from other hosts; `hosts` [members]."""
    outside = np.where(hosts[:, None] != hosts[None, :], matrix, 0.0)
    sums = [np.bincount(hosts - hosts.min(), outside.sum(axis=axis)) for axis in (0, 1)]
    return float(max(side.max() for side in sums))
