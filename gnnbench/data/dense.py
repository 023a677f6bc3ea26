"""DENSE samples: every vertex is sampled once per batch, and all layers reuse its neighbours.

Legend: L hops; Delta_L the targets, Delta_{L-1} the vertices first found in hop 1, ..., Delta_0
those first found in the last hop. Per-layer sampling draws the neighbours of a vertex anew in each
hop that it is a destination of. Here hop h expands the vertices that hop h - 1 found and no others.
So a batch has one list of neighbours per vertex of Delta_1 ... Delta_L, and layer l aggregates the
lists of Delta_l ... Delta_L.

The lists are kept in the order in which vertices are found, targets first: those of a layer are the
head of one CSR, and its blocks are views. Reversed hop by hop they are the arrays of the paper, see
`DenseSample.as_published`.

Deviations: a vertex with more neighbours than the fan-out draws distinct ones (the paper draws with
replacement); neighbours are in-neighbours (the paper samples both directions apart). The estimator
is not that of per-layer sampling; both are the full sum where the fan-out takes all neighbours.

Source: Waleffe et al., "MariusGNN", EuroSys 2023, section 4; out-of-core reference section 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnnbench.data import keys
from gnnbench.data.sampling import (
    Batch,
    Block,
    Ids,
    Locals,
    NeighbourSampler,
    close_table,
    open_table,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Published:
    """The arrays of the paper: the last hop's vertices first, targets last.

    Args:
        node_ids: Delta_0 ++ ... ++ Delta_L, distinct, int64.
        hop_offsets: start of each Delta, and the number of vertices, int64 [L + 2].
        nbrs: neighbours of Delta_1 ... Delta_L, ids, int64.
        nbr_offsets: start of each of their runs, int64 [vertices - |Delta_0|].
        repr_map: place of every entry of `nbrs` in `node_ids`, int64.
    """

    node_ids: Ids
    hop_offsets: Ids
    nbrs: Ids
    nbr_offsets: Ids
    repr_map: Ids


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DenseSample:
    """One list of neighbours per vertex that is expanded.

    Args:
        nodes: ids, targets first, then hop by hop, int64.
        starts: first place of Delta_L, Delta_{L-1}, ..., Delta_0, and the end, int64 [L + 2].
        indptr: start of each list, int64 [expanded + 1].
        indices: places in `nodes`, int32.
        degrees: in-degrees in the graph of the expanded vertices, int32.
    """

    nodes: Ids
    starts: Ids
    indptr: Ids
    indices: Locals
    degrees: Locals

    def batch(self) -> Batch:
        """The blocks of all layers, input layer first: heads of one CSR, nothing is copied."""
        blocks = []
        for rows, sources in zip(self.starts[-2:0:-1], self.starts[:1:-1], strict=True):
            blocks.append(
                Block(
                    indptr=self.indptr[: rows + 1],
                    indices=self.indices[: self.indptr[rows]],
                    num_dst=int(rows),
                    num_src=int(sources),
                    degrees=self.degrees[:rows],
                )
            )
        return Batch(
            blocks=tuple(blocks), input_nodes=self.nodes, seeds=self.nodes[: self.starts[1]]
        )

    def as_published(self) -> Published:
        """The arrays of the paper."""
        parts = [np.arange(a, b) for a, b in zip(self.starts, self.starts[1:], strict=False)]
        order = np.concatenate(parts[::-1])
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        expanded = order[len(parts[-1]) :]
        runs = [self.indices[self.indptr[row] : self.indptr[row + 1]] for row in expanded]
        lengths = [len(run) for run in runs]
        entries = np.concatenate([*runs, np.empty(0, np.int32)]).astype(np.int64)
        sizes = [len(part) for part in parts[::-1]]
        return Published(
            node_ids=self.nodes[order],
            hop_offsets=np.cumsum([0, *sizes]),
            nbrs=self.nodes[entries],
            nbr_offsets=np.cumsum([0, *lengths])[:-1],
            repr_map=place[entries],
        )


class DenseSampler(NeighbourSampler):
    """Draws batches whose vertices are sampled once each; arguments as of `NeighbourSampler`.

    A vertex found in hop h draws by the keys of hop h + 1. So in the first hop, and for a fan-out
    that takes all neighbours in every hop, the picks are those of per-layer sampling.
    """

    def draw(self, seeds: Ids, epoch: int, step: int) -> DenseSample:
        """Draw a batch. Seeds are distinct."""
        if len(np.unique(seeds)) != len(seeds):
            raise ValueError("targets of a DENSE sample are distinct: remove repeats first")
        found = count = len(seeds)
        self._reserve(count, 0)
        open_table(np.ascontiguousarray(seeds, np.int64), self._nodes, self._table)
        starts, hops, first = [0, count], [], 0
        for hop, fanout in enumerate(self.fanouts_from_seeds):
            key = np.uint64(keys.fold(self.seed, epoch, step, hop))
            block = self._hop(found, fanout, key, first)
            first, found = found, block.num_src
            starts.append(found)
            hops.append(block)
        nodes = self._nodes[:found].copy()
        close_table(nodes, self._table)
        ends = np.cumsum([0, *(block.num_edges for block in hops)])
        return DenseSample(
            nodes=nodes,
            starts=np.array(starts, np.int64),
            indptr=np.concatenate(
                [np.zeros(1, np.int64)]
                + [block.indptr[1:] + end for block, end in zip(hops, ends, strict=False)]
            ),
            indices=np.concatenate([block.indices for block in hops]),
            degrees=np.concatenate([block.degrees for block in hops]),
        )

    def sample(self, seeds: Ids, epoch: int, step: int) -> Batch:
        """The blocks of a batch."""
        return self.draw(seeds, epoch, step).batch()

    def twin(self) -> DenseSampler:
        """Return a sampler of the same batches with its own scratch, for another thread."""
        return DenseSampler(
            self.indptr, self.indices, self.fanouts_from_seeds, self.seed, self._team.threads
        )
