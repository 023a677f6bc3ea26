"""What METIS does to a graph that only a profile describes: uneven entries, near and far parts.

METIS balances vertices, and so did the published systems; the entries of a part, and with them its
sparse products, are not balanced (fullgraph 16.3: model compute skew per rank). And its parts are
numbered as they were split from one another, so that a host's parts are neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gnnbench.data.profile import GraphProfile

EXPONENT = 0.25
"""Entries of the largest part over the mean are about P to this power.

Measured, not fitted to any published time: median over nine real graphs (cora, citeseer, astro-ph,
facebook pages, squirrel, tolokers, deezer-hu, cnr-2000, ogbl-ddi) that METIS parted for volume,
1.19 1.35 1.40 1.67 1.97 in 2 3 4 8 16 parts. Spread: 1.02 to 1.61 in 2 parts, 1.05 to 1.80 in 4.
"""


def skewed(structure: Any) -> Any:
    """A partition's structure whose entries fall off linearly from rank to rank; the sum is kept.

    A heavier tail than twice the mean cannot be said this way. Deviation known: which rank has most
    entries is not; here it is the one with the largest halo.
    """
    sizes = structure.sizes
    if len(sizes) == 1:
        return structure
    lean = min(len(sizes) ** EXPONENT - 1.0, 1.0)
    factors = 1.0 + lean * np.linspace(1.0, -1.0, len(sizes))
    dealt = [
        replace(
            size,
            nonzeros=round(size.nonzeros * factor),
            halo_nonzeros=round(size.halo_nonzeros * factor),
        )
        for size, factor in zip(sizes, factors.tolist(), strict=True)
    ]
    changes: dict[str, Any] = {
        "sizes": dealt,
        "basis": f"{structure.basis}; entries as uneven as METIS leaves them",
    }
    if hasattr(structure, "cut_edges"):
        pairs = zip(structure.cut_edges, factors.tolist(), strict=True)
        changes["cut_edges"] = tuple(round(edges * factor) for edges, factor in pairs)
    return replace(structure, **changes)


def nested(structure: Any, profile: GraphProfile, method: str, ranks_per_host: int) -> Any:
    """A partition's structure in which a host's ranks share more halo than ranks of two hosts.

    If the parts of a host cut their share of the graph as as many parts cut the whole graph (a
    self-similar graph, an assumption), s(g) of the s(P) halo copies per vertex stay within hosts of
    g ranks. Each rank receives as many rows as before, give or take one from each peer.
    """
    world, group = len(structure.sizes), ranks_per_host
    if not 1 < group < world:
        return structure
    whole = profile.expected_halo(world, method)[0].halo_per_node
    near = min(profile.expected_halo(group, method)[0].halo_per_node / max(whole, 1e-12), 1.0)
    host = np.arange(world) // group
    same = host[:, None] == host[None, :]
    np.fill_diagonal(same, False)
    away = host[:, None] != host[None, :]
    peers = same.sum(axis=1)[:, None]
    shares = np.where(same, near / np.maximum(peers, 1), 0.0)
    left = 1.0 - shares.sum(axis=1)[:, None]
    shares += np.where(away, left / np.maximum(away.sum(axis=1)[:, None], 1), 0.0)
    received = np.round(
        shares * np.array([size.halo_rows for size in structure.sizes])[:, None]
    ).astype(int)
    sizes = [
        replace(size, recv_rows=tuple(into), send_rows=tuple(out))
        for size, into, out in zip(
            structure.sizes, received.tolist(), received.T.tolist(), strict=True
        )
    ]
    basis = f"{structure.basis}; {near:.0%} of the halo within a host"
    return replace(structure, sizes=sizes, basis=basis)
