"""Node classification from the disk: which seeds in which state, and the graph in the buffer.

Mini-batches are drawn from the partitions in the buffer: a seed sees only neighbours that are
resident. Within the buffer vertices are numbered by id, so that a buffer of all partitions draws
the very batches of `sampled`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench import work
from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.mini_batch.batch import BatchSizes, even_batch
from gnnbench.approaches.mini_batch.sampled import APPROACH as SAMPLED
from gnnbench.approaches.out_of_core.policies import Policy
from gnnbench.approaches.out_of_core.storage import (
    Buckets,
    Rows,
    admitted_buckets,
    bucket_counts,
)
from gnnbench.approaches.out_of_core.visits import Visit, changes, policy_of, with_work
from gnnbench.data import keys, sampling
from gnnbench.data.by_target import by_target
from gnnbench.data.dense import DenseSampler
from gnnbench.data.graph import Graph
from gnnbench.data.mapped import forget_mapped_pages
from gnnbench.data.profile import GraphProfile
from gnnbench.data.sampling import NeighbourSampler
from gnnbench.spec import RunSpec
from gnnbench.steps import Ints, Work

EDGE_BYTES = 8
"""Of an edge on the disk: two ids of 32 bits."""
_SHUFFLE = 100
_EDGES_AT_ONCE = 1_000_000


@dataclass(frozen=True, slots=False, kw_only=True, eq=False)
class NodeStructure:
    """Where everything lies, and the policy.

    Args:
        policy: of the buffer.
        rows: the table of features.
        position: of every vertex in the table, int32 [N]; None on a profile.
        buckets: of the edges; None on a profile.
        train_nodes: ids, rising; None on a profile.
        batch_size: seeds of a batch.
        num_train: training vertices.
    """

    policy: Policy
    rows: Rows
    position: NDArray[np.int32] | None
    buckets: Buckets | None
    train_nodes: Ints | None
    batch_size: int
    num_train: int

    @cached_property
    def partition_of(self) -> NDArray[np.int32]:
        """The partition of every vertex."""
        assert self.position is not None
        return self.position // np.int32(self.rows.per_partition)

    def visits(self, epoch: int) -> list[Visit]:
        """The visits of an epoch; `items` are the ids of the seeds, in order."""
        assert self.train_nodes is not None
        policy, p = self.policy, self.policy.partitions
        order = sampling.epoch_seeds(self.train_nodes, policy.seed, epoch)
        states = policy.states(epoch)
        state_of = policy.states_of_rows(epoch, states, self.partition_of[order])
        busy = np.bincount(state_of, minlength=len(states)) > 0
        kept, numbers = with_work(states, busy)
        before, found = np.zeros(p, bool), []
        for number, (resident, admitted, evicted) in zip(numbers, changes(kept), strict=True):
            after = np.zeros(p, bool)
            after[resident] = True
            found.append(
                Visit(
                    resident=resident,
                    admitted=admitted,
                    evicted=evicted,
                    wanted=admitted_buckets(before, after),
                    items=order[state_of == number],
                )
            )
            before = after
        return found

    def steps(self, visit: Visit) -> int:
        """Batches of a visit."""
        return sampling.steps(len(visit.items), self.batch_size)

    @cached_property
    def order(self) -> NDArray[np.int32]:
        """The vertex at every position of the table."""
        assert self.position is not None
        found = np.empty(len(self.position), np.int32)
        found[self.position] = np.arange(len(self.position), dtype=np.int32)
        return found

    def residents(self, visit: Visit) -> tuple[Ints, Ints]:
        """Ids of the resident vertices, rising, and the place of each among the resident rows.

        The rank of an id is the vertex's number within the buffer. Resident rows are those of the
        resident partitions, one behind the other.
        """
        rows = self.rows
        starts = visit.resident * rows.per_partition
        pairs = zip(starts.tolist(), visit.resident.tolist(), strict=True)
        found = [self.order[start : start + rows.rows_of(part)] for start, part in pairs]
        ids = np.concatenate(found)
        # Ids rise within a partition: a stable sort merges the runs.
        place = np.argsort(ids, kind="stable")
        return ids[place].astype(np.int64), place

    def resident_ids(self, visit: Visit) -> Ints:
        """Ids of the resident vertices, rising: their numbers within the buffer."""
        return self.residents(visit)[0]


def sampler_of(graph: Graph, run: RunSpec, knobs: Any, threads: int = 1) -> NeighbourSampler:
    """What draws the batches of a visit from the graph of the buffer."""
    make = DenseSampler if knobs.sampling == "dense" else NeighbourSampler
    fanouts = run.batch.fanouts(run.model.layers)
    return make(graph.indptr, graph.indices, fanouts, run.training.seed, threads)


def drawn_work(knobs: Any, vertices: Sequence[Any], edges: Sequence[Any]) -> Work:
    """Drawing a batch.

    Args:
        knobs: of the approach.
        vertices, edges: of the blocks, input layer first. The first block of a DENSE sample has
            all neighbours that were drawn; those of other layers are heads of it.
    """
    if knobs.sampling == "dense":
        return work.draw_once(vertices[0], vertices[1], edges[0])
    return work.draw_neighbours(vertices, edges)


def expected_batch(held: GraphProfile, run: RunSpec, knobs: Any, reached: float) -> BatchSizes:
    """Expected sizes of a batch from the graph of the buffer, from its degrees.

    Args:
        held: profile of the graph of the buffer.
        run: what is trained.
        knobs: of the approach.
        reached: share of the vertices that batches reach, see `GraphProfile.reached_share`.
    """
    dense, fanouts = knobs.sampling == "dense", run.batch.fanouts(run.model.layers)
    if not dense and held.frontier:
        return SAMPLED.estimate(held, replace(run, ranks=1, knobs={}), partitioned=False)
    # Late: the estimators' compiler is slow to import.
    from gnnbench.data.reach import frontier_within

    vertices, hops = frontier_within(
        reached,
        held.histogram(),
        held.num_train,
        fanouts,
        min(run.batch.size, held.num_train),
        undirected=held.undirected,
        computation_graph="expand_new" if dense else "per_layer",
    )
    if not dense:
        return even_batch(1, vertices, hops)
    # A layer aggregates the lists of its own hop and of the hops before.
    return even_batch(1, vertices, tuple(np.cumsum(hops[::-1])[::-1]))


def training_partitions(num_train: int, rows: Rows) -> int:
    """k_tr: partitions that hold training vertices where these come first."""
    return -(-num_train // rows.per_partition) if num_train else 0


def policy_name(knobs: Any, num_train: int, rows: Rows) -> str:
    """The policy that "auto" stands for: SEQUENTIAL where the training partitions fit."""
    if knobs.policy != "auto":
        return str(knobs.policy)
    fits = training_partitions(num_train, rows) <= (knobs.buffer or knobs.partitions)
    return "sequential" if fits else "dispersed"


def feature_rows(data: Any, run: RunSpec, knobs: Any) -> Rows:
    """The table of features of a run."""
    width = data.num_features * run.training.element_bytes
    return Rows(num_rows=data.num_nodes, partitions=knobs.partitions, row_bytes=max(width, 1))


def node_structure(data: GraphLike, run: RunSpec, knobs: Any) -> NodeStructure:
    """Place vertices and edges: at random, but SEQUENTIAL puts the training vertices first."""
    rows, seed = feature_rows(data, run, knobs), run.training.seed
    name, training = (
        policy_name(knobs, data.num_train, rows),
        training_partitions(data.num_train, rows),
    )
    policy = policy_of(knobs, name, seed, training)
    placed: dict[str, Any] = {"position": None, "buckets": None, "train_nodes": None}
    if not isinstance(data, GraphProfile):
        position = place_rows(data, name, seed, rows)
        part = position // np.int32(rows.per_partition)
        counts = np.zeros((policy.partitions, policy.partitions), np.int64)
        for sources, targets in edge_chunks(data):
            counts += bucket_counts(part[sources], part[targets], policy.partitions)
        placed = {
            "position": position,
            "buckets": Buckets(counts=counts, edge_bytes=EDGE_BYTES),
            "train_nodes": data.train_nodes(),
        }
    return NodeStructure(
        policy=policy,
        rows=rows,
        batch_size=run.batch.size,
        num_train=data.num_train,
        **placed,
    )


def edge_chunks(graph: Graph) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
    """Sources and targets of all edges, a million at a time: all may not fit in memory.

    The pages of a mapped graph are released behind the reader.
    """
    indptr, start = np.asarray(graph.indptr), 0
    while start < graph.num_nodes:
        stop = int(np.searchsorted(indptr, indptr[start] + _EDGES_AT_ONCE, side="right")) - 1
        stop = min(max(stop, start + 1), graph.num_nodes)
        degrees = np.diff(indptr[start : stop + 1])
        targets = np.repeat(np.arange(start, stop, dtype=np.int32), degrees)
        yield np.asarray(graph.indices[indptr[start] : indptr[stop]]), targets
        forget_mapped_pages([graph.indices])
        start = stop


def place_rows(graph: Graph, policy: str, seed: int, rows: Rows) -> NDArray[np.int32]:
    """Position of every vertex in the table of features, int32 [N].

    The partition of a vertex is random. Within a partition rows lie by id, so that features that
    are read in the order of ids are appended to their partitions: one pass over each file.
    """
    order = keys.generator(seed, _SHUFFLE).permutation(graph.num_nodes)
    if policy == "sequential":
        assert graph.train_mask is not None
        order = order[np.argsort(~np.asarray(graph.train_mask)[order], kind="stable")]
    # 16 bits hold the number of a partition, and numpy sorts them by radix.
    part = np.empty(graph.num_nodes, np.uint16)
    part[order] = np.arange(graph.num_nodes, dtype=np.int32) // np.int32(max(rows.per_partition, 1))
    position = np.empty(graph.num_nodes, np.int32)
    position[np.argsort(part, kind="stable")] = np.arange(graph.num_nodes, dtype=np.int32)
    return position


def buffer_graph(
    sources: NDArray[np.integer],
    targets: NDArray[np.integer],
    resident: Ints,
    graph: Graph,
    numbers: NDArray[np.int32] | None = None,
) -> Graph:
    """The graph within the buffer: bare topology of the resident vertices, numbered by id.

    Args:
        sources, targets: ids of the ends of all edges between resident vertices, in any order.
        resident: ids, rising.
        graph: has the number of vertices, and whether edges go both ways.
        numbers: int32 [N], is overwritten; None: a new array.
    """
    local = np.empty(graph.num_nodes, np.int32) if numbers is None else numbers
    local[resident] = np.arange(len(resident), dtype=np.int32)
    indptr, indices = by_target(local[sources], local[targets], len(resident))
    return Graph(
        name=graph.name,
        indptr=indptr,
        indices=indices,
        undirected=graph.undirected,
    )


def resident_edges(graph: Graph, resident: Ints) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ends (sources, targets) of the edges of a graph between resident vertices."""
    there = np.zeros(graph.num_nodes, bool)
    there[resident] = True
    kept = []
    for sources, targets in edge_chunks(graph):
        inside = there[sources] & there[targets]
        kept.append((sources[inside], targets[inside]))
    empty = np.empty(0, np.int32)
    of_sources, of_targets = zip(*kept, strict=True) if kept else ((empty,), (empty,))
    return np.concatenate(of_sources), np.concatenate(of_targets)


def resident_share(profile: GraphProfile, count: int, reached: float, *, pinned: bool) -> float:
    """Share of the vertices in the part of the graph that batches reach that are resident.

    Args:
        profile: of the graph.
        count: resident vertices.
        reached: share of the vertices that batches reach.
        pinned: whether all training vertices are resident; they lie in that part.
    """
    nodes, train = max(profile.num_nodes, 1), profile.num_train
    part = reached * nodes
    if not pinned or part <= train or count < train or nodes == train:
        return count / nodes
    return min((train + (part - train) * (count - train) / (nodes - train)) / part, 1.0)


def buffer_profile(profile: GraphProfile, share: float) -> GraphProfile:
    """The profile of the graph within a buffer that holds some share of all vertices.

    Every neighbour is resident with that probability: degrees shrink alike.
    """
    n = max(1, round(profile.num_nodes * share))
    counts = [round(count * share) for count in profile.degree_counts]
    if counts:
        counts[int(np.argmax(counts))] += n - sum(counts)
    return dataclasses.replace(
        profile,
        num_nodes=n,
        num_edges=round(profile.num_edges * share * share),
        num_train=min(profile.num_train, n),
        num_val=0,
        num_test=0,
        degree_values=tuple(value * share for value in profile.degree_values),
        degree_counts=tuple(counts),
        frontier=profile.frontier if share == 1.0 else (),
        halo=(),
    )
