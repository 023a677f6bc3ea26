"""Rows that count pages: what the neighbourhoods of a batch of targets read, from degrees alone.

What is counted, as the counting code does it (marius-team/marius, branch dsarda/simulation):

- Neighbours are the heads of a vertex's out-edges. Held are the vertices of the highest in-degree.
- Vertices in memory leave the frontier before it is expanded. Their rows are not read, and neither
  are their neighbours: a held target reads nothing.
- A batch of targets reads a page once. The number is that of the batch over its targets; the
  standard deviation is over batches.
- Rows are whole in a page: 40 rows of 400 B in 16 KiB.

The counted graphs are lists of directed edges. Of an undirected profile each edge is in the list
once: in- and out-degree of a vertex are half of its degree on average. Both are taken as draws from
the halved histogram that are independent of one another, as in the directed configuration model. A
neighbour is found in proportion to its in-degree and has the out-degree of any vertex.

A target that reads x of P pages hits a given page with the chance 1 - exp(-x / P), independently of
other pages. Of B independent targets the mean is P (1 - E[exp(-x / P)]^B) / B; the variance follows
from that of exp(-x / P) over targets.

Deviation known: neighbours are independent of one another; in clustered graphs neighbourhoods of
two hops overlap more. Vertices of the highest in-degree have more out-edges than others, so that
two hops are up to a third too high with few vertices in memory, and too low with many.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.out_of_core.pages import PagedRows
from gnnbench.data.profile import GraphProfile
from gnnbench.published.places import profile_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.rows import PublishedRow, whole_number

MEAN, STD = "mean pages loaded per target node", "std of pages loaded per target node"
PAGE_COUNTS = (MEAN, STD)
_UNIT = re.compile(r"pages of (\d+) B")
_MOST_TARGETS = 1_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCount:
    """Pages that targets and their in-neighbourhoods are read from.

    Args:
        profile: of the graph.
        hops: of the neighbourhood, all neighbours.
        held: share of the nodes that are in memory, those of the highest in-degree.
        rows: the table of features.
        targets: of a batch, which reads a page once.
    """

    profile: GraphProfile
    hops: int
    held: float
    rows: PagedRows
    targets: int = 1

    def expected(self, metric: str) -> tuple[float, str]:
        """Mean per target, or standard deviation over batches, and what the number rests on."""
        degrees, counts = (np.asarray(x, float) for x in self.profile.histogram())
        order = np.argsort(-degrees)
        counts = counts[order]
        degrees = degrees[order] / (2.0 if self.profile.undirected else 1.0)
        total = max(float(counts.sum()), 1e-300)
        outside = self._outside(counts)
        read = 1.0 + self._vertices(degrees, counts, outside)
        pages, each = self._pages()
        # The chance of one page to be read for a target, by its out-degree; held ones read none.
        hit = -np.expm1(-read * each / pages)
        share, free = counts / total, float(outside.sum()) / total
        chance = free * float((share * hit).sum())
        spread = free * float((share * (hit - chance) ** 2).sum()) + (1.0 - free) * chance**2
        missed, batch = 1.0 - chance, self.targets
        basis = f"degrees of {self.profile.name}, neighbours independent"
        if metric == MEAN:
            return -pages * math.expm1(batch * math.log1p(-chance)) / batch, basis
        relative = math.expm1(batch * math.log1p(spread / max(missed, 1e-300) ** 2))
        return pages * missed**batch * math.sqrt(max(relative, 0.0)) / batch, basis

    def _outside(self, counts: Floats) -> Floats:
        """Vertices of each class that are not in memory; classes by falling in-degree."""
        before = np.cumsum(counts) - counts
        held: Floats = np.clip(self.held * counts.sum() - before, 0.0, counts)
        return counts - held

    def _vertices(self, degrees: Floats, counts: Floats, outside: Floats) -> Floats:
        """Expected neighbours that are read for a target of each out-degree that is not held."""
        ends = max(float((degrees * counts).sum()), 1e-300)
        mean = ends / max(float(counts.sum()), 1e-300)
        drawn, found, fresh = np.zeros(len(degrees)), np.zeros(len(degrees)), degrees
        for hop in range(self.hops):
            drawn = drawn + (fresh if hop == 0 else fresh * mean)
            # A vertex of in-degree k is among n drawn ends with the chance 1 - exp(-n k / E).
            distinct = -np.expm1(-np.outer(drawn, degrees) / ends) @ outside
            fresh, found = distinct - found, distinct
        return found

    def _pages(self) -> tuple[int, int]:
        """Pages of the table, and pages of a row; rows are whole in a page where they fit."""
        size, row = self.rows.page_bytes, self.rows.row_bytes
        each = -(-row // size)
        return max(each * -(-self.rows.num_rows // max(size // row, 1)), 1), each

    def is_input(self, row: PublishedRow) -> bool:
        """False: no profile is made from pages."""
        return False


def page_count(row: PublishedRow) -> PageCount:
    """What a row counts. Raises NotModelled for what it does not state."""
    held = re.search(r"top ([\d.]+)% nodes by in-degree held", row.notes)
    features = re.search(r"features fp(\d+) x(\d+)", row.notes)
    page = _UNIT.search(row.unit)
    if held is None or features is None or page is None or not row.num_layers:
        raise NotModelled("configuration not stated", row.notes or "empty")
    targets = whole_number(row.batch) if row.batch else 1
    if targets is None or targets > _MOST_TARGETS:
        raise NotModelled("configuration not stated", f"batch {row.batch!r}")
    profile = profile_of(row)
    rows = PagedRows(
        num_rows=profile.num_nodes,
        row_bytes=max(int(features[1]) // 8 * int(features[2]), 1),
        page_bytes=max(int(page[1]), 1),
    )
    return PageCount(
        profile=profile,
        hops=row.num_layers,
        held=float(held[1]) / 100,
        rows=rows,
        targets=targets,
    )
