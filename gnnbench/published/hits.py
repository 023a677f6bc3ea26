"""Hit rates of static caches of input rows: by degree, and by pre-sampling."""

from __future__ import annotations

import numpy as np

from gnnbench.data.profile import GraphProfile


def degree_hits(profile: GraphProfile, share: float) -> float:
    """Share of the input rows of batches that the cached share of the vertices serves.

    Counted where others counted it. Else a vertex is an input in proportion to its degree, which
    holds for small batches (sampling section 3: degree-weighted occupancy). Deviation known: where
    training vertices lie together, or batches are large, degree says less of who is read.
    """
    points = _BY_DEGREE.get(profile.name)
    if points is not None:
        return _between(points, share)
    degrees, counts = (np.asarray(column, float) for column in profile.histogram())
    order = np.argsort(-degrees)
    degrees, counts = degrees[order], counts[order]
    reads = degrees * counts
    vertices = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    read = np.concatenate([[0.0], np.cumsum(reads)]) / max(float(reads.sum()), 1e-300)
    return float(np.interp(share, vertices, read))


def presampled_hits(profile: GraphProfile, share: float) -> float | None:
    """Share of the input rows that a cache filled by pre-sampling serves; None: not measured."""
    if share >= 1.0:
        return 1.0
    points = _PRESAMPLED.get(profile.name)
    return None if points is None else _between(points, share)


_PRESAMPLED = {
    "ogbn-papers100m": ((0.10, 0.983), (0.21, 0.985)),
    "ogbn-products": ((0.10, 0.204),),
    "twitter-2010": ((0.01, 0.32), (0.10, 0.749), (0.15, 0.82), (0.25, 0.894)),
    "uk-2006-05": ((0.10, 0.613),),
}
_BY_DEGREE = {
    "ogbn-papers100m": (
        (0.05, 0.289),
        (0.10, 0.496),
        (0.15, 0.640),
        (0.20, 0.751),
        (0.25, 0.829),
        (0.30, 0.884),
    ),
    "ogbn-products": ((0.10, 0.191),),
    "twitter-2010": ((0.10, 0.727), (0.25, 0.855)),
    "uk-2006-05": ((0.10, 0.280),),
}
"""Share of the vertices in a cache and its counted hit rate, three hops from batches of 8,000 seeds
(GNNLab: exp/fig4a, fig10, fig12 and table5 of its artefact, anchors of sampling section 5)."""


def _between(points: tuple[tuple[float, float], ...], share: float) -> float:
    """Between and beyond counted points misses are in proportion to the vertices left out."""
    shares, hits = zip((0.0, 0.0), *points, (1.0, 1.0), strict=True)
    return float(np.interp(share, shares, hits))
