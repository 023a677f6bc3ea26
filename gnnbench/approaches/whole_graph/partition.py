"""Partition parallelism with halo exchange: vertices are split, halo rows are sent in every layer.

Exact for any partition and any number of ranks.

Closed forms, per epoch over all P ranks (C halo copies, s bytes per element, theta parameters; Phi
and Psi are the sums over layers of the widths that are exchanged forward and backward):

    halo        s C (Phi + Psi); `precompute` removes layer 1 from both sums (FG-14)
    gradients   P floor(2 (P - 1) S / P) with S = (theta + 1) s, the ring all-reduce
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gnnbench.approaches.base import Approach, GraphLike, Layout, Probe, example
from gnnbench.approaches.card import EXACT, Accepts, Look, Promise, Published
from gnnbench.approaches.whole_graph.rows import Options, RowSizes, precompute_problem, row_plan
from gnnbench.atomic import whole
from gnnbench.data.graph import Graph
from gnnbench.data.halo import halo_counts, halo_entries
from gnnbench.data.partition import partition
from gnnbench.data.partitioners import metis_bytes
from gnnbench.data.profile import GraphProfile
from gnnbench.data.reuse import counted_reuse
from gnnbench.data.source import content_digest
from gnnbench.models.names import MODELS
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.strict import choices


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionKnobs:
    """Knobs of `partition`.

    Args:
        partitioner: how vertices are assigned to ranks.
        objective: what METIS minimises: communication volume (vol) or edge cut (cut).
        order: which product of a layer comes first; min_width aggregates at the smaller of the
            layer's two widths.
        precompute: aggregate the input features once, before training; layer 1 then needs neither
            communication nor a sparse product.
        overlap: aggregate over the rank's own source rows while halo rows travel.
        transport: native sends from device memory. host_staged copies rows and gradients to the
            host, sends them over gloo and copies them back, as systems without NCCL do; on CPU
            both are the same.
    """

    partitioner: str = field(default="metis", metadata=choices("metis", "fennel", "hash", "chunk"))
    objective: str = field(default="vol", metadata=choices("vol", "cut"))
    order: str = field(
        default="min_width", metadata=choices("min_width", "aggregate_first", "transform_first")
    )
    precompute: bool = False
    overlap: bool = False
    transport: str = field(default="native", metadata=choices("native", "host_staged"))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartitionStructure:
    """Owners of vertices. `assignment` int32 [N] is absent when sizes come from a profile."""

    sizes: RowSizes
    assignment: NDArray[np.int32] | None = None
    counted: bool = True
    basis: str = "counted on the real graph"

    @classmethod
    def whole(cls, data: GraphLike) -> PartitionStructure:
        """One rank that owns every vertex."""
        sizes = RowSizes.whole(data)
        if isinstance(data, GraphProfile):
            return cls(sizes=sizes, basis="counts of the profile")
        return cls(sizes=sizes, assignment=np.zeros(data.num_nodes, np.int32))

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
        counts, nonzeros, nodes = halo_counts(graph, assignment, num_parts)
        train = np.bincount(assignment[graph.train_nodes()], minlength=num_parts)
        remote = np.zeros(num_parts, np.int64)
        if split_entries:
            remote = halo_entries(graph, assignment, num_parts)
        sizes = RowSizes(
            rows=np.asarray(nodes, np.int64),
            nonzeros=np.asarray(nonzeros, np.int64),
            train_rows=train.astype(np.int64),
            received=np.asarray(counts, np.int64),
            halo_nonzeros=remote,
            reuse=counted_reuse(graph.indptr, graph.indices, assignment, num_parts),
        )
        return cls(sizes=sizes, assignment=assignment)


def cached_array(
    cache: Path | None, kind: str, key: tuple[object, ...], make: Callable[[], NDArray[Any]]
) -> NDArray[Any]:
    """Return an array from the cache folder or make it; written atomically, never a pickle."""
    if cache is None:
        return make()
    digest = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    path = cache / f"{kind}-{digest}.npy"
    if path.exists():
        # A file that a full disk or another program has cut is made again.
        with suppress(ValueError, EOFError, OSError):
            return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    array = make()
    cache.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        np.save(file, array, allow_pickle=False)
    return array


def assign(
    graph: Graph, run: RunSpec, partitioner: str, objective: str, cache: Path | None
) -> NDArray[np.int32]:
    """The owner of every vertex for this run; METIS results are cached.

    Where METIS needs more than the run's cap on the host's memory, Fennel partitions the graph as a
    stream instead, and a line of the log says so.
    """
    partitioner = within_cap(graph, run, partitioner)

    def make() -> NDArray[np.int32]:
        return partition(
            graph, run.ranks, method=partitioner, objective=objective, seed=run.training.seed
        )

    if partitioner != "metis" or run.ranks == 1:
        return make()
    key = (graph.digest or content_digest(graph), run.ranks, objective, run.training.seed)
    if key not in _ASSIGNMENTS:
        _ASSIGNMENTS[key] = cached_array(cache, "metis", key, make)
    return _ASSIGNMENTS[key]


def within_cap(graph: Graph, run: RunSpec, partitioner: str) -> str:
    """The partitioner, or "fennel" where METIS does not fit the cap on the host's memory."""
    cap = run.memory.host
    if partitioner != "metis" or run.ranks == 1 or not cap or metis_bytes(graph) <= cap:
        return partitioner
    _LOG.warning(
        "%s: METIS needs %.0f MB, and memory.host is %.0f MB: partitioned by Fennel, from a stream",
        *(graph.name, metis_bytes(graph) / 1e6, cap / 1e6),
    )
    return "fennel"


_LOG = logging.getLogger(__name__)
# METIS is the dearest step of a prediction and serves every model and repeat of a suite.
_ASSIGNMENTS: dict[tuple[object, ...], NDArray[np.int32]] = {}


def profile_structure(profile: GraphProfile, num_parts: int, method: str) -> PartitionStructure:
    """Estimate the sizes of a partition from the profile's halo curve.

    The largest halo is the mean times the profile's max/mean imbalance; the halos of the other
    ranks fall linearly, so that the mean is kept. Rows and edges are even. The number of nonzeros
    with remote sources is the profile's edge cut, or the expectation for random owners where it
    states none.
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

    def shares(total: int) -> NDArray[np.int64]:
        return total // num_parts + (np.arange(num_parts) < total % num_parts)

    nonzeros = shares(profile.num_edges)
    sizes = RowSizes(
        rows=shares(profile.num_nodes),
        nonzeros=nonzeros,
        train_rows=shares(profile.num_train),
        received=received,
        halo_nonzeros=np.round(cut * nonzeros).astype(np.int64),
        reuse=profile.reuse_of_rows(),
    )
    return PartitionStructure(sizes=sizes, counted=False, basis=basis)


class Partitioned(Approach):
    """Base of approaches that split the vertices by a partitioner."""

    def prepare(self, data: Graph, run: RunSpec, cache: Path | None = None) -> None:
        """Partition once; the ranks read the cached assignment."""
        knobs = self.knobs(run)
        assign(data, run, knobs.partitioner, knobs.objective, cache)

    def structure(
        self, data: GraphLike, run: RunSpec, cache: Path | None = None
    ) -> PartitionStructure:
        knobs = self.knobs(run)
        if run.ranks == 1:
            return PartitionStructure.whole(data)
        if isinstance(data, GraphProfile):
            return profile_structure(data, run.ranks, method_name(knobs))
        assignment = assign(data, run, knobs.partitioner, knobs.objective, cache)
        return PartitionStructure.of_assignment(
            data, assignment, run.ranks, split_entries=self.needs_split(knobs)
        )

    def needs_split(self, knobs: Any) -> bool:
        """Whether the plan needs the entries from other ranks' vertices counted."""
        return False


def method_name(knobs: Any) -> str:
    """The partition method as profiles name it, such as metis-vol."""
    method: str = knobs.partitioner
    return f"metis-{knobs.objective}" if method == "metis" else method


class Partition(Partitioned):
    """Card and plan of `partition`."""

    name = "partition"
    title = "Partition parallel (halo exchange)"
    paper = "vanilla mode of BNS-GCN (Wan et al., MLSys 2022) and PipeGCN (Wan et al., ICLR 2022)"
    summary = "partitions; halo rows are exchanged before every aggregation"
    promise: ClassVar[Promise] = EXACT
    accepts = Accepts(attention=True)
    look: ClassVar[Look] = Look(colour="#0072B2", marker="o")
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            names=r"vanilla|^full-graph$|^pipegcn \(sync\)$",
            recipe="gnnbench.published.recipes:vanilla",
        ),
    )
    knobs_type: ClassVar[type[Any]] = PartitionKnobs
    runtime = "gnnbench_runtime.approaches.whole_graph.partition:PartitionTrainer"

    def examples(self) -> list[RunSpec]:
        gat = {"kind": "gat", "heads": 2, "dropout": 0.5}
        return [
            example("partition"),
            example("partition", 3, model={"kind": "sage", "layers": 3, "dropout": 0.5}),
            example("partition", model=gat, knobs={"partitioner": "hash"}),
            example("partition", knobs={"overlap": True}, model={"norm": "layer"}),
            example("partition", knobs={"precompute": True}),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        if probe.ranks == 1:
            return []
        knobs = {
            "order": ("min_width", "aggregate_first", "transform_first")[probe.number % 3],
            "partitioner": ("metis", "hash")[probe.number % 2],
            "objective": "cut",
        }
        return [replace(probe.run, approach=self.name, ranks=probe.ranks, knobs=knobs)]

    def problems(self, run: RunSpec) -> list[str]:
        """`overlap` and `transport = host_staged` exclude each other."""
        knobs: PartitionKnobs = self.knobs(run)
        if knobs.overlap and knobs.transport == "host_staged":
            return ['overlap: found true with transport "host_staged", which waits for its copies']
        return []

    def skip_reason(self, run: RunSpec, data: GraphLike | None = None) -> str | None:
        """Reason why the model or device does not allow a knob, or None."""
        knobs: PartitionKnobs = self.knobs(run)
        if knobs.overlap and MODELS.get(run.model.kind).attention:
            return f"overlap: the softmax of {run.model.kind} needs all entries of a row at once"
        return precompute_problem(run) if knobs.precompute else None

    def needs_split(self, knobs: Any) -> bool:
        return bool(knobs.overlap)

    def plan(self, data: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: PartitionKnobs = self.knobs(run)
        asked, possible = knobs.transport == "host_staged", layout.device != "cpu"
        plan = row_plan(
            data,
            run,
            structure.sizes,
            Options(
                order=knobs.order,
                precompute=knobs.precompute,
                overlap=knobs.overlap,
                staged=asked and possible,
            ),
            counted=structure.counted,
            basis=structure.basis,
        )
        if asked and not possible:
            note = "host_staged is native here: on a CPU, rows are in host memory already"
            plan = replace(plan, notes={**plan.notes, "transport": note})
        return plan


APPROACH = Partition()
