"""Partition parallelism with halo exchange: vertices are split, boundary rows travel every layer.

Volume per epoch over all ranks, weights apart: s S (Phi + Psi) with S halo copies (fullgraph
section 5, FG-14); `precompute` takes layer 1 out of both. Exact for any partition and any number of
ranks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gnnbench import registry
from gnnbench.approaches.base import Approach, GraphLike, Layout
from gnnbench.approaches.whole_graph.rows import RankSizes, full_graph_plan, precompute_problem
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.strict import choices


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionKnobs:
    """Knobs of `partition`.

    partitioner: metis, hash or chunk. objective: what METIS minimises (communication volume or
    edge cut). order: which product comes first in a layer; min_width aggregates the narrower side.
    precompute: aggregate the features once, before training; layer 1 then neither communicates nor
    has a sparse product. overlap: sum up the entries with own sources while halo rows travel.
    transport: native, or host_staged, which takes all rows and gradients from device to host, over
    gloo and back, as systems did before they had NCCL; on CPU the two are one.
    """

    partitioner: str = field(default="metis", metadata=choices("metis", "hash", "chunk"))
    objective: str = field(default="vol", metadata=choices("vol", "cut"))
    order: str = field(
        default="min_width", metadata=choices("min_width", "aggregate_first", "transform_first")
    )
    precompute: bool = False
    overlap: bool = False
    transport: str = field(default="native", metadata=choices("native", "host_staged"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionStructure:
    """Who owns what. `assignment` int32 [N] is absent when sizes come from a profile."""

    sizes: list[RankSizes]
    assignment: NDArray[np.int32] | None = None
    exact: bool = True
    basis: str = "counted on the real graph"

    @classmethod
    def whole(cls, graph: GraphLike) -> PartitionStructure:
        """One rank that owns every vertex."""
        size = RankSizes(
            rows=graph.num_nodes, nonzeros=graph.num_edges, train_rows=graph.num_train,
            send_rows=(0,), recv_rows=(0,),
        )  # fmt: skip
        if isinstance(graph, GraphProfile):
            return cls(sizes=[size], exact=True, basis="counts of the profile")
        return cls(sizes=[size], assignment=np.zeros(graph.num_nodes, np.int32))

    @classmethod
    def of_assignment(
        cls,
        graph: Graph,
        assignment: NDArray[np.int32],
        num_parts: int,
        *,
        split_entries: bool = False,
    ) -> PartitionStructure:
        """Count rows, entries and boundaries of a partition of a real graph.

        With `split_entries` also the entries whose sources lie on other ranks.
        """
        from gnnbench.data.halo import halo_counts, halo_entries

        counts, nonzeros, nodes = halo_counts(graph, assignment, num_parts)
        train = np.bincount(assignment[graph.train_nodes()], minlength=num_parts)
        received, sent = counts.tolist(), counts.T.tolist()
        remote = np.zeros(num_parts, np.int64)
        if split_entries:
            remote = halo_entries(graph, assignment, num_parts)
        sizes = [
            RankSizes(
                rows=int(nodes[i]),
                nonzeros=int(nonzeros[i]),
                train_rows=int(train[i]),
                send_rows=tuple(sent[i]),
                recv_rows=tuple(received[i]),
                halo_nonzeros=int(remote[i]),
            )
            for i in range(num_parts)
        ]
        return cls(sizes=sizes, assignment=assignment)


def cached_array(
    cache: Path | None, kind: str, key: tuple[object, ...], make: Callable[[], NDArray[Any]]
) -> NDArray[Any]:
    """Return an array from the cache folder or make it; written atomically, never a pickle."""
    if cache is None:
        return make()
    import os
    import tempfile

    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    path = cache / f"{kind}-{digest}.npy"
    if path.exists():
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    array = make()
    cache.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=cache, suffix=".npy")
    with os.fdopen(handle, "wb") as file:
        np.save(file, array, allow_pickle=False)
    os.replace(temporary, path)
    return array


def assign(
    graph: Graph, run: RunSpec, partitioner: str, objective: str, cache: Path | None
) -> NDArray[np.int32]:
    """The owner of every vertex for this run; METIS results are cached."""
    from gnnbench.data.partition import partition

    def make() -> NDArray[np.int32]:
        return partition(
            graph, run.ranks, method=partitioner, objective=objective, seed=run.training.seed
        )

    if partitioner != "metis" or run.ranks == 1:
        return make()
    source = {**vars_of(run.graph), "name": ""}
    key = (source, graph.num_nodes, graph.num_edges, run.ranks, objective, run.training.seed)
    if repr(key) not in _ASSIGNMENTS:
        _ASSIGNMENTS[repr(key)] = cached_array(cache, "metis", key, make)
    return _ASSIGNMENTS[repr(key)]


# METIS is the dearest step of a prediction and serves every model and repeat of a suite.
_ASSIGNMENTS: dict[str, NDArray[np.int32]] = {}


def vars_of(item: Any) -> dict[str, Any]:
    """Fields of a slotted dataclass as a dict."""
    import dataclasses

    return dataclasses.asdict(item)


def profile_structure(profile: GraphProfile, num_parts: int, method: str) -> PartitionStructure:
    """Sizes of a partition that is not there: the profile's halo curve, evenly dealt out.

    The largest halo is the profile's max/mean imbalance times the mean; the ranks between fall off
    linearly, so that their mean is kept. Rows and edges are even. Entries with remote sources are
    the profile's edge cut; where it says nothing of it, as many as if owners were drawn by lot.
    """
    point, basis = profile.expected_halo(num_parts, method)
    cut = 1 - 1 / num_parts if point.cut_fraction is None else point.cut_fraction
    mean = point.halo_per_node * profile.num_nodes / num_parts
    lean = (point.halo_imbalance or 1.0) - 1.0
    place = np.linspace(1.0, -1.0, num_parts)
    halo = np.maximum(mean * (1.0 + lean * place), 0.0)
    peers = max(num_parts - 1, 1)
    # Rank i receives the same from each peer, give or take a row; what it sends is the column sum.
    # Whole rows are dealt to the ranks after it, so that few rows over many peers do not vanish.
    base, left = np.divmod(np.round(halo).astype(np.int64), peers)
    distance = (np.arange(num_parts) - np.arange(num_parts)[:, None]) % num_parts
    received = base[:, None] + (distance <= left[:, None])
    np.fill_diagonal(received, 0)
    sent = received.T.tolist()
    received_rows = received.tolist()

    def share(total: int, rank: int) -> int:
        return total // num_parts + (rank < total % num_parts)

    sizes = [
        RankSizes(
            rows=share(profile.num_nodes, rank),
            nonzeros=share(profile.num_edges, rank),
            train_rows=share(profile.num_train, rank),
            send_rows=tuple(sent[rank]),
            recv_rows=tuple(received_rows[rank]),
            halo_nonzeros=round(cut * share(profile.num_edges, rank)),
        )
        for rank in range(num_parts)
    ]
    return PartitionStructure(sizes=sizes, exact=False, basis=basis)


class Partition(Approach):
    """Card and plan of `partition`."""

    name = "partition"
    title = "Partition parallel (halo exchange)"
    paper = "vanilla mode of BNS-GCN (Wan et al., MLSys 2022) and PipeGCN (Wan et al., ICLR 2022)"
    summary = "vertices split over ranks; boundary rows exchanged before every aggregation"
    exact = True
    attention = True
    runtime = "gnnbench_runtime.approaches.whole_graph.partition:PartitionTrainer"
    knobs_type: ClassVar[type[Any]] = PartitionKnobs

    def problems(self, run: RunSpec) -> list[str]:
        """A thread of its own cannot both overlap and stage."""
        # Approaches built on this one have knobs of their own, and may lack these.
        if run.knobs.get("overlap") and run.knobs.get("transport") == "host_staged":
            return ['overlap: found true with transport "host_staged", which waits for its copies']
        return []

    def skip_reason(self, run: RunSpec, graph: GraphLike | None = None) -> str | None:
        """What a knob asks of a model that cannot have it."""
        if run.knobs.get("overlap") and registry.model(run.model.kind).attention:
            return f"overlap: {run.model.kind}'s softmax needs all entries of a row at once"
        return precompute_problem(run) if run.knobs.get("precompute") else None

    def prepare(self, graph: Graph, run: RunSpec, cache: Path | None = None) -> None:
        """Partition once; ranks read the cached assignment."""
        knobs: PartitionKnobs = self.knobs(run)
        assign(graph, run, knobs.partitioner, knobs.objective, cache)

    def structure(
        self, graph: GraphLike, run: RunSpec, cache: Path | None = None
    ) -> PartitionStructure:
        knobs: PartitionKnobs = self.knobs(run)
        if run.ranks == 1:
            return PartitionStructure.whole(graph)
        if isinstance(graph, GraphProfile):
            method = knobs.partitioner
            if method == "metis":
                method = f"metis-{knobs.objective}"
            return profile_structure(graph, run.ranks, method)
        assignment = assign(graph, run, knobs.partitioner, knobs.objective, cache)
        return PartitionStructure.of_assignment(
            graph, assignment, run.ranks, split_entries=bool(run.knobs.get("overlap"))
        )

    def plan(self, graph: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: PartitionKnobs = self.knobs(run)
        asked, possible = knobs.transport == "host_staged", layout.device != "cpu"
        plan = full_graph_plan(
            graph,
            run,
            structure.sizes,
            order=knobs.order,
            exact=structure.exact,
            basis=structure.basis,
            precompute=knobs.precompute,
            overlap=knobs.overlap,
            staged=asked and possible,
        )
        if asked and not possible:
            told = "host_staged is native here: on CPU, rows are in host memory already"
            plan = replace(plan, notes={**plan.notes, "transport": told})
        return plan


APPROACH = Partition()
