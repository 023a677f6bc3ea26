"""Expected sizes of sampled batches without sampling (sampling section 3, estimators 1 and 2).

Sizes are listed as the sampler lists them, input layer first: vertices n_0 ... n_L and edges
e_1 ... e_L. Fan-outs are counted from the seeds outwards; -1 takes all neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from gnnbench.data.graph import Graph
from gnnbench.errors import SpecError, UnknownName

COMPUTATION_GRAPHS = ("per_layer", "expand_new")

Sizes = tuple[tuple[float, ...], tuple[float, ...]]


def vip_frontier(
    graph: Graph,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    train_nodes: NDArray[np.int64] | None = None,
    computation_graph: str = "per_layer",
) -> Sizes:
    """Return the expected n_0 ... n_L and e_1 ... e_L of a batch of `batch` seeds.

    `per_layer` samples every destination anew in each hop (DGL); `expand_new` only vertices found
    in the hop before, and e_l then counts the edges drawn in that hop (PyG).

    Source: vertex inclusion probabilities of SALIENT++ (Kaler et al., MLSys 2023), with two
    corrections for small batches: a vertex that is sampled in several hops picks among the same
    neighbours, and the neighbour through which it was found counts no more (cavity method).
    Deviation known: n_0 within 2 % on block graphs (the plain recursion is up to 20 % high there).
    Neighbours count as independent, so clustered graphs come out high: Tolokers 0-6 %, Cora
    0-30 %, astro-ph 10-60 %, a mesh several times. If the graph is available and clustered,
    sample instead. Cost: one pass over the edges per hop.
    """
    seen, edges = _vip(graph, fanouts_from_seeds, batch, train_nodes, computation_graph)
    return tuple(float(s.sum()) for s in reversed(seen)), tuple(reversed(edges))


def vip_inclusion(
    graph: Graph,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    train_nodes: NDArray[np.int64] | None = None,
    computation_graph: str = "per_layer",
) -> NDArray[np.float64]:
    """Return for every node the chance to be among the input vertices of a batch, float64 [N].

    Its sum is n_0 of `vip_frontier`; caches of remote features rank nodes by it.
    """
    return _vip(graph, fanouts_from_seeds, batch, train_nodes, computation_graph)[0][-1]


def occupancy_frontier(
    degrees: NDArray[np.floating[Any]] | Sequence[float],
    counts: NDArray[np.number[Any]] | Sequence[float],
    num_train: int,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    computation_graph: str = "per_layer",
    *,
    undirected: bool = True,
) -> Sizes:
    """As `vip_frontier`, from a degree histogram: `counts[k]` nodes have `degrees[k]`.

    Each drawn edge hits a vertex in proportion to its out-degree, which is assumed equal to its
    in-degree. Training vertices are assumed to have the same degree distribution as all vertices.
    Deviation known: a few per cent high on block graphs when the histogram is fine, up to 50 % when
    it is a single bin; much too high on clustered graphs, as `vip_frontier`.
    """
    odds, weight, sizes = _occupancy(
        degrees, counts, num_train, fanouts_from_seeds, batch, computation_graph, undirected
    )
    edges = [float((chance * weight).sum()) for chance in odds.edges()]
    return tuple(reversed(sizes)), tuple(reversed(edges))


def occupancy_inclusion(
    degrees: NDArray[np.floating[Any]] | Sequence[float],
    counts: NDArray[np.number[Any]] | Sequence[float],
    num_train: int,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    *,
    undirected: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """As `vip_inclusion`, from a degree histogram: nodes per class, and the chance of each class.

    Classes are the bins of the histogram, for training vertices and for others: float64 [2 bins].
    """
    odds, weight, _ = _occupancy(
        degrees, counts, num_train, fanouts_from_seeds, batch, "per_layer", undirected
    )
    return weight, 1 - odds.unseen[-1]


def _occupancy(
    degrees: NDArray[np.floating[Any]] | Sequence[float],
    counts: NDArray[np.number[Any]] | Sequence[float],
    num_train: int,
    fanouts_from_seeds: Sequence[int],
    batch: int,
    computation_graph: str,
    undirected: bool,
) -> tuple[_Odds, NDArray[np.float64], list[float]]:
    """Grow a batch by classes of nodes; return chances, nodes per class, and n_L ... n_0."""
    _check(fanouts_from_seeds, computation_graph)
    degree = np.tile(np.asarray(degrees, float), 2)
    total = float(np.sum(counts))
    share = min(num_train / total, 1.0) if total else 0.0
    weight = np.concatenate([np.asarray(counts) * share, np.asarray(counts) * (1 - share)])
    num_edges = max(float((degree * weight).sum()), 1e-300)
    seed = np.zeros(len(degree))
    seed[: len(seed) // 2] = min(batch / num_train, 1.0) if num_train else 0.0
    odds = _Odds(degree, seed, fanouts_from_seeds, computation_graph)
    sizes = [float((seed * weight).sum())]
    # The neighbour through which a vertex was found is no discovery.
    useful = [degree] + [np.maximum(degree - 1, 0) if undirected else degree] * len(odds.fanouts)
    for hop in range(1, len(odds.fanouts) + 1):
        reach = odds.reach(hop)
        pairs = sum(odds.fresh[g] * reach[g] * useful[g] for g in range(hop))
        odds.advance((1 - seed) * np.exp(-float((pairs * weight).sum()) * degree / num_edges))
        sizes.append(float(((1 - odds.unseen[hop]) * weight).sum()))
    return odds, weight, sizes


class _Odds:
    """Chances per node (or class of nodes) while a batch grows hop by hop.

    `unseen[h]`: not among the vertices after h hops; `fresh[h]`: found in hop h; `picks[h - 1]`:
    chance that a destination of hop h picks one given neighbour.
    """

    def __init__(
        self,
        degrees: NDArray[np.float64],
        seed: NDArray[np.float64],
        fanouts: Sequence[int],
        computation_graph: str,
    ) -> None:
        self.degrees, self.fanouts = degrees, fanouts
        self.once = computation_graph == "expand_new"
        self.picks = [_picks(degrees, f) / np.maximum(degrees, 1) for f in fanouts]
        self.unseen, self.fresh = [1 - seed], [seed]

    def reach(self, hop: int) -> list[NDArray[np.float64]]:
        """Return, per hop g of discovery, the chance to have picked a given neighbour by `hop`.

        A vertex is sampled anew in each hop after g, or in hop g + 1 only (`expand_new`). Hops of
        one vertex draw from the same neighbours, so their picks overlap.
        """
        if self.once:
            return self.picks[:hop]
        chances, keep = [], np.ones(len(self.degrees))
        for pick in reversed(self.picks[:hop]):
            keep = keep * (1 - pick)
            chances.append(1 - keep)
        return chances[::-1]

    def advance(self, unseen: NDArray[np.float64]) -> None:
        """Take the chances to be unseen after one more hop."""
        unseen = np.clip(unseen, 0, self.unseen[-1])
        self.fresh.append(self.unseen[-1] - unseen)
        self.unseen.append(unseen)

    def edges(self) -> list[NDArray[np.float64]]:
        """Return the expected edges drawn at each node, per hop."""
        states = zip(self.picks, self.fresh, self.unseen, strict=False)
        return [
            pick * self.degrees * (fresh if self.once else 1 - unseen)
            for pick, fresh, unseen in states
        ]


def _vip(
    graph: Graph,
    fanouts: Sequence[int],
    batch: int,
    train_nodes: NDArray[np.int64] | None,
    computation_graph: str,
) -> tuple[list[NDArray[np.float64]], list[float]]:
    """Return the chance of each node to have been seen after 0 ... L hops, and edges per hop."""
    _check(fanouts, computation_graph)
    train = graph.train_nodes() if train_nodes is None else train_nodes
    indptr, indices = np.asarray(graph.indptr), np.asarray(graph.indices)
    seed = np.zeros(graph.num_nodes)
    if len(train):
        seed[train] = min(batch / len(train), 1.0)
    odds = _Odds(graph.in_degrees().astype(float), seed, fanouts, computation_graph)
    picked = [np.zeros(graph.num_nodes)]  # chance to pick a given neighbour by hop 0, 1, ...
    for hop in range(1, len(fanouts) + 1):
        reach = np.stack(odds.reach(hop))
        fresh, unseen = np.stack(odds.fresh), np.stack(odds.unseen)
        picked.append((fresh * reach).sum(axis=0))
        missed = _missed(indptr, indices, graph.undirected, fresh, unseen, reach, np.stack(picked))
        odds.advance((1 - seed) * missed)
    return [1 - unseen for unseen in odds.unseen], [float(e.sum()) for e in odds.edges()]


def _picks(degrees: NDArray[np.float64], fanout: int) -> NDArray[np.float64]:
    return degrees if fanout < 0 else np.minimum(degrees, fanout)


def _check(fanouts: Sequence[int], computation_graph: str) -> None:
    if computation_graph not in COMPUTATION_GRAPHS:
        raise UnknownName("computation graph", computation_graph, COMPUTATION_GRAPHS)
    if any(fanout < -1 for fanout in fanouts):
        raise SpecError(f"fanouts_from_seeds: found {list(fanouts)}, allowed -1 (all) or >= 0")


@numba.njit(cache=True)
def _missed(  # type: ignore[no-untyped-def]
    indptr, indices, undirected, fresh, unseen, reach, picked
):
    """Return for each node the chance that no destination has picked it by this hop.

    The product over the destinations v of u of 1 - P(v picks u). On an undirected graph v may
    have been found through u itself, which is no news about u: then v's chances are those of a
    graph without u (the cavity method), unseen[v] over the chance that u does not pick v.
    """
    hops = len(fresh)
    missed = np.ones(len(indptr) - 1)
    for v in range(len(indptr) - 1):
        if picked[hops, v] <= 0:
            continue
        for edge in range(indptr[v], indptr[v + 1]):
            u = indices[edge]
            chance = picked[hops, v]
            if undirected:
                chance = fresh[0, v] * reach[0, v]
                before = min(unseen[0, v], 1.0)
                for hop in range(1, hops):
                    after = min(unseen[hop, v] / max(1 - picked[hop, u], 1e-12), before)
                    chance += (before - after) * reach[hop, v]
                    before = after
            missed[u] *= max(1 - chance, 0.0)
    return missed
