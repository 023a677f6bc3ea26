"""METIS partitions of a graph that only a profile describes: uneven edges, near and far parts.

METIS balances vertices, and so did the published systems; the edges of a part, and with them its
sparse products, are not balanced (fullgraph 16.3: compute skew of ranks). Parts are numbered in the
order in which they were split from one another, so that the parts of one host are neighbours.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from gnnbench.approaches.whole_graph.bns import ProfileBoundary
from gnnbench.approaches.whole_graph.partition import PartitionStructure
from gnnbench.costs.facts import Floats
from gnnbench.data.profile import GraphProfile
from gnnbench.steps import Ints

EXPONENT = 0.25
"""Edges of the largest part over the mean are about P to this power.

Measured, not fitted to any published time: median over nine real graphs (cora, citeseer, astro-ph,
facebook pages, squirrel, tolokers, deezer-hu, cnr-2000, ogbl-ddi) that METIS parted for volume,
1.19 1.35 1.40 1.67 1.97 in 2 3 4 8 16 parts. Spread: 1.02 to 1.61 in 2 parts, 1.05 to 1.80 in 4.
"""

Structure = TypeVar("Structure", bound=PartitionStructure)


def skewed(structure: Structure) -> Structure:
    """The structure with edges that fall off linearly from rank to rank; their sum is kept.

    The largest part has min(P^EXPONENT, 2) times the mean: a linear fall allows no more. Deviation
    known: which rank has most edges is unknown; here it is the one with the largest halo.
    """
    sizes, world = structure.sizes, structure.sizes.world_size
    if world == 1:
        return structure
    lean = min(world**EXPONENT - 1.0, 1.0)
    factors = 1.0 + lean * np.linspace(1.0, -1.0, world)
    changes: dict[str, Any] = {
        "sizes": replace(
            sizes,
            nonzeros=_rounded(sizes.nonzeros * factors),
            halo_nonzeros=_rounded(sizes.halo_nonzeros * factors),
        ),
        "basis": f"{structure.basis}; edges of parts as uneven as METIS leaves them",
    }
    if isinstance(structure, ProfileBoundary):
        changes["cut_edges"] = _rounded(structure.cut_edges * factors)
    return replace(structure, **changes)


def nested(
    structure: Structure, profile: GraphProfile, method: str, ranks_per_host: int
) -> Structure:
    """The structure with more halo between ranks of one host than between ranks of two.

    Assumed: the parts of a host cut their share of the graph as the same number of parts cuts the
    whole graph (self-similarity). With s(P) halo copies per vertex in P parts, s(g) of s(P) then
    stay within hosts of g ranks. Each rank receives as many rows as before, up to rounding by one
    row per peer.
    """
    world, group = structure.sizes.world_size, ranks_per_host
    if not 1 < group < world:
        return structure
    whole = profile.expected_halo(world, method)[0].halo_per_node
    near = min(profile.expected_halo(group, method)[0].halo_per_node / max(whole, 1e-12), 1.0)
    received = _rounded(_shares(world, group, near) * structure.sizes.halo_rows[:, None])
    return replace(
        structure,
        sizes=replace(structure.sizes, received=received),
        basis=f"{structure.basis}; {near:.0%} of the halo within a host",
    )


def _shares(world: int, group: int, near: float) -> Floats:
    """Share of rank i's halo that comes from rank j, [P, P]: `near` of it from its own host."""
    host = np.arange(world) // group
    same = host[:, None] == host[None, :]
    away = ~same
    np.fill_diagonal(same, False)
    peers, others = same.sum(axis=1)[:, None], away.sum(axis=1)[:, None]
    shares = np.where(same, near / np.maximum(peers, 1), 0.0)
    # A last host with a single rank has no peers of its own: all of its halo comes from outside.
    left = 1.0 - shares.sum(axis=1)[:, None]
    return shares + np.where(away, left / np.maximum(others, 1), 0.0)


def _rounded(sizes: Floats) -> Ints:
    return np.round(sizes).astype(np.int64)
