"""Rows that count pages: what the neighbourhood of one target reads, from the degrees of a profile.

The page model is that of `mmap` (see `approaches.out_of_core.pages`): rows lie one behind another
by id, which has nothing to do with degrees, and pages are hit independently. The counted graphs are
lists of directed edges. Of an undirected profile each edge is in the list once: a node of degree d
has d / 2 in-neighbours and d / 2 out-neighbours, so an in-neighbour is found in proportion to d.

Deviation known: neighbours are independent of one another. In clustered graphs a neighbourhood of
two hops has far fewer distinct vertices; a profile has no statistic of that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from gnnbench.approaches.out_of_core.pages import PagedRows
from gnnbench.data.profile import GraphProfile
from gnnbench.published.places import profile_of
from gnnbench.published.reason import NotModelled
from gnnbench.published.rows import PublishedRow

MEAN, STD = "mean pages loaded per target node", "std of pages loaded per target node"
PAGE_COUNTS = (MEAN, STD)
_UNIT = re.compile(r"pages of (\d+) B")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCount:
    """Pages that a target and its in-neighbourhood are read from.

    Args:
        profile: of the graph.
        hops: of the neighbourhood, all neighbours.
        held: share of the nodes that are in memory, those of the highest in-degree.
        rows: the table of features.
    """

    profile: GraphProfile
    hops: int
    held: float
    rows: PagedRows

    def expected(self, metric: str) -> tuple[float, str]:
        """Mean or standard deviation over targets, and what the number rests on."""
        degrees, counts = (np.asarray(x, float) for x in self.profile.histogram())
        order = np.argsort(-degrees)
        degrees, counts = degrees[order], counts[order]
        total, ends = float(counts.sum()), float((degrees * counts).sum())
        before = np.cumsum(counts) - counts
        outside = counts - np.clip(self.held * total - before, 0, counts)
        drawn = reached = degrees / 2 if self.profile.undirected else degrees
        # An in-neighbour is found in proportion to its degree.
        further = float((counts * degrees * reached).sum()) / max(ends, 1e-300)
        for _ in range(self.hops - 1):
            reached = reached * further
            drawn = drawn + reached
        hit = -np.expm1(-np.outer(drawn, degrees) / max(ends, 1e-300))
        vertices = hit @ outside + outside / counts  # and the target itself
        pages = float(self.rows.num_pages)
        read = pages * -np.expm1(-vertices * self._pages_per_row() / pages)
        mean = float((read * counts).sum() / total)
        basis = f"degrees of {self.profile.name}, neighbours independent"
        if metric == MEAN:
            return mean, basis
        return float(np.sqrt((counts * (read - mean) ** 2).sum() / total)), basis

    def _pages_per_row(self) -> float:
        """Pages on which a row lies, on average: a row that straddles two lies on both."""
        rows = self.rows
        return rows.rows_per_page * rows.num_pages / rows.num_rows

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
    profile = profile_of(row)
    rows = PagedRows(
        num_rows=profile.num_nodes,
        row_bytes=int(features[1]) // 8 * int(features[2]),
        page_bytes=int(page[1]),
    )
    return PageCount(profile=profile, hops=row.num_layers, held=float(held[1]) / 100, rows=rows)
