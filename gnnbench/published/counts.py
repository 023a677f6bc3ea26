"""Rows that count vertices of a METIS partition: predicted from the halo curve of a profile."""

from __future__ import annotations

from dataclasses import dataclass

from gnnbench.data.profile import GraphProfile
from gnnbench.published.rows import PublishedRow

COUNTS = (
    "boundary_copies_total",
    "boundary_copies_max_partition",
    "halo_nodes_total",
    "halo_nodes_max_rank",
    "inner_nodes_max_rank",
)
METIS_BALANCE = 1.03
"""Largest part over the mean part that METIS tolerates by default (ufactor 30)."""
_SAME = 5e-3
"""A count within this relative distance of a point of the profile is where that point is from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionCount:
    """A partition whose vertices are counted.

    Args:
        profile: of the graph.
        parts: number of parts.
        method: "metis-vol" or "metis-cut".
    """

    profile: GraphProfile
    parts: int
    method: str

    def expected(self, metric: str) -> tuple[float, str]:
        """Vertices that a metric of `COUNTS` counts, and what the number rests on.

        `_total` sums the halos of all parts; the others are those of the largest part.
        """
        point, basis = self.profile.expected_halo(self.parts, self.method)
        nodes = self.profile.num_nodes
        if metric.startswith("inner"):
            even = METIS_BALANCE * nodes / self.parts
            return even, "an even share, filled up to the tolerance of METIS"
        total = point.halo_per_node * nodes
        if metric.endswith("_total"):
            return total, basis
        return total * (point.halo_imbalance or 1.0) / self.parts, basis

    def is_input(self, row: PublishedRow) -> bool:
        """Whether the profile was made from a row: the same partition has the same number."""
        if row.metric.startswith("inner"):
            return False
        measured = [
            point
            for point in self.profile.halo
            if (point.parts, point.method) == (self.parts, self.method)
            and (row.metric.endswith("_total") or point.halo_imbalance is not None)
        ]
        expected, _ = self.expected(row.metric)
        return bool(measured) and abs(expected / row.value - 1) < _SAME
