"""The disk that a row's words name."""

from __future__ import annotations

import re

from gnnbench.cluster import load_cluster
from gnnbench.published.places import cluster_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.rows import PublishedRow

_DISKS = (
    (r"not stated|unknown", None),
    (r"pm1725b", "pm1725b"),
    (r"\bgp3\b", "ebs-gp3"),
    (r"\bebs\b", "ebs-gp3-max"),
    (r"\bsata\b", "sata-ssd"),
    (r"nvme.*(?:gen ?4|pcie ?4)", "nvme-pcie4"),
    (r"nvme.*(?:gen ?3|pcie ?3)", "nvme-pcie3"),
)
_PCIE4 = ("ampere", "ada", "hopper", "blackwell")
"""Devices whose hosts have PCIe 4 or 5. A drive of no stated kind is one on four lanes of PCIe 4
there, and of PCIe 3 elsewhere."""


def disk_of(row: PublishedRow) -> str:
    """The disk of the catalogue that a row's words name; "" is the one of its cluster.

    Raises:
        NotModelled: the row names none, and its cluster has none.
    """
    words = f"{row.storage} {row.hardware}".lower()
    for pattern, name in _DISKS:
        if re.search(pattern, words):
            if name is None:
                raise NotModelled("disk not stated", row.storage or row.hardware)
            return name
    cluster = load_cluster(cluster_of(row, native=True))
    if cluster.storage is not None:
        return ""
    if "nvme" in words:
        return "nvme-pcie4" if cluster.device.arch in _PCIE4 else "nvme-pcie3"
    raise NotModelled("disk not stated", row.storage or "empty")
