"""MariusGNN: node classification and link prediction on one machine, from the disk.

Rows lie in p partitions on the disk, edges in p^2 buckets by the partitions of their ends. A buffer
holds c partitions, and the buckets between them. A policy orders the states of the buffer.

Closed forms (V rows of F bytes, E edges of e bytes, R = ceil(V / p) rows of a partition, l groups
of g = p / l partitions, m_0 = p - c; a trained row counts its Adagrad state):

    swaps S             beta: sum over r of m_r + min(c - 1, m_r), m_(r+1) = m_r - min(c - 1, m_r)
                        comet: that of beta for l groups of which c / g fit: l (l - 1) / 2 - 1
                        where two fit
                        dispersed: p - c; sequential: 0
    partitions read     c + S n in an epoch, n = g for comet and 1 else, of R F bytes each
    partitions written  as many where rows are trained, none of features
    buckets read        c^2 + S (2 c n - n^2) in an epoch, of E / p^2 edges on average
    buffer              c slots of R F bytes, and n more with read_ahead
    resident edges      E (c / p)^2 on average, e bytes each in their buckets
    graph of a state    8 (c R + 1) bytes of pointers and 4 of an edge, for node classification

States without training vertices are skipped, and what would be read for them is not.

Source: Waleffe, Mohoney, Rekatsinas, Venkataraman, "MariusGNN: Resource-Efficient Out-of-Core
Training of Graph Neural Networks", EuroSys 2023; out-of-core reference sections 2-7.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from gnnbench.approaches.base import NO_SEEDS, Approach, Layout, example
from gnnbench.approaches.card import Accepts, Look, Promise, Published
from gnnbench.approaches.out_of_core import policies
from gnnbench.approaches.out_of_core.link_plan import link_plan
from gnnbench.approaches.out_of_core.links import (
    entity_rows,
    link_problem,
    link_structure,
    num_facts,
)
from gnnbench.approaches.out_of_core.node_plan import node_plan
from gnnbench.approaches.out_of_core.nodes import (
    feature_rows,
    node_structure,
    policy_name,
    training_partitions,
)
from gnnbench.approaches.out_of_core.storage import Rows
from gnnbench.approaches.out_of_core.tuning import Sizes, block_of, too_large, tune
from gnnbench.approaches.out_of_core.visits import policy_of
from gnnbench.disk_limit import DiskKnobs
from gnnbench.errors import Unsupported
from gnnbench.models.names import MODELS
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.strict import bounds, choices


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfCoreKnobs(DiskKnobs):
    """Knobs of `out-of-core`.

    partitions: physical partitions p of the table on the disk; 0 chooses p, c and l for the run's
    memory.host (see `tuning`). buffer: partitions c in memory; 0
    is all of them. policy: of the order in which partitions are read; "auto" is sequential where
    the training partitions fit the buffer and else dispersed, and comet for embeddings. logical:
    logical partitions l of comet; 0 is 2 p / c. read_ahead: whether the next partitions are read
    while the present ones are trained on. staleness: batches in flight besides the one that is
    trained on: they are drawn, gathered and copied ahead, and the rows of trained tables lack so
    many updates; features are read only and never late. 0 is synchronous. durable: 1 commits what
    was learnt after every epoch, in generations: a run that was killed goes on behind the last one,
    and a trained table takes twice its space on the disk. sampling: "dense" draws the neighbours of
    a vertex once per batch and reuses them in every layer (DENSE); "per_layer" draws them anew in
    every layer, as `sampled` does. They differ from two layers on.
    """

    partitions: int = field(default=8, metadata=bounds(0, 16_384))
    buffer: int = field(default=0, metadata=bounds(0, 16_384))
    policy: str = field(
        default="auto", metadata=choices("auto", "sequential", "dispersed", "comet", "beta")
    )
    logical: int = field(default=0, metadata=bounds(0, 16_384))
    read_ahead: int = field(default=0, metadata=bounds(0, 1))
    staleness: int = field(default=0, metadata=bounds(0, 64))
    durable: int = field(default=0, metadata=bounds(0, 1))
    sampling: str = field(default="dense", metadata=choices("dense", "per_layer"))


NODE_POLICIES = ("auto", "sequential", "dispersed")
LINK_POLICIES = ("auto", "comet", "beta")


class OutOfCore(Approach):
    """Card and plan of `out-of-core`."""

    name = "out-of-core"
    title = "MariusGNN, partitions on disk"
    paper = "Waleffe et al., MariusGNN, EuroSys 2023; Mohoney et al., Marius, OSDI 2021"
    summary = "features or embeddings on disk; batches drawn from the partitions in a buffer"
    promise = Promise(
        kind="own",
        text="Mini-batches are drawn from the partitions in the buffer; with all partitions in the "
        "buffer it is in-memory training; with staleness k the rows of embeddings lack the updates "
        "of the k batches before.",
        reference="sampled",
        limit={
            "buffer": 0,
            "policy": "auto",
            "logical": 0,
            "staleness": 0,
            "sampling": "per_layer",
        },
    )
    accepts = Accepts(
        datasets=frozenset({"graph", "triples"}),
        tasks=frozenset({"node_classification", "link_prediction"}),
        attention=True,
        batch=True,
        embeddings=True,
    )
    look = Look(colour="#999933", marker="D")
    published: ClassVar[tuple[Published, ...]] = (
        Published(
            names=r"^(marius(gnn)?|m-gnn)\b(?! page|/)",
            recipe="gnnbench.published.disk_systems:marius",
        ),
    )
    knobs_type = OutOfCoreKnobs
    runtime = "gnnbench_runtime.approaches.out_of_core.trainers:from_disk"

    def examples(self) -> list[RunSpec]:
        few = {"size": 16, "fanouts_from_seeds": (4, 3)}
        return [
            example(self.name, 1, batch=few, knobs={"partitions": 4}),
            example(
                self.name,
                1,
                batch=few,
                model={"kind": "sage", "norm": "layer"},
                knobs={"partitions": 6, "buffer": 5, "policy": "sequential"},
            ),
            example(
                self.name,
                1,
                batch={"size": 16, "fanouts_from_seeds": (4, 3, 2)},
                model={"kind": "sage", "layers": 3},
                knobs={"partitions": 4, "buffer": 3, "sampling": "per_layer"},
            ),
            example(self.name, 1, batch=few, knobs={"partitions": 6, "buffer": 2, "read_ahead": 1}),
            example(
                self.name,
                1,
                batch=few,
                model={"kind": "gat", "heads": 2, "dropout": 0.3},
                knobs={"partitions": 5, "buffer": 2, "policy": "dispersed"},
            ),
            example(
                self.name,
                1,
                batch={"size": 8, "fanouts_from_seeds": (4, 3)},
                knobs={"partitions": 6, "buffer": 3, "read_ahead": 1, "staleness": 2},
            ),
            *(
                example(
                    self.name,
                    1,
                    kind="triples",
                    batch={"size": 64, "negatives": 20},
                    model={"kind": "embedding", "decoder": decoder},
                    knobs=knobs,
                    training={"optimizer": "adagrad"},
                )
                for decoder, knobs in (
                    ("distmult", {"buffer": 4}),
                    ("complex", {"partitions": 4, "buffer": 2, "policy": "beta"}),
                    ("dot", {"partitions": 6, "buffer": 2, "read_ahead": 1}),
                    ("distmult", {"partitions": 4, "buffer": 2, "staleness": 3}),
                    ("complex", {"partitions": 6, "buffer": 2, "read_ahead": 1, "staleness": 1}),
                    ("distmult", {"partitions": 4, "buffer": 2, "durable": 1}),
                )
            ),
        ]

    def variants_for_cap(self, run: RunSpec) -> list[dict[str, Any]]:
        """Partitions and a buffer as large as the memory allows."""
        return [{"partitions": 0}]

    def reference(self, run: RunSpec) -> str:
        """The approach that trains on the same batches from memory."""
        return "embeddings" if of_rows(run) else "sampled"

    def skip_reason(self, run: RunSpec, data: Any = None) -> str | None:
        """One rank; partitions that are not empty; a buffer that its policy can work with."""
        if run.ranks > 1:
            return f"{self.name} trains on one rank: several ranks over one disk are not built"
        knobs: OutOfCoreKnobs = self.knobs(run)
        kind = getattr(data, "kind", run.dataset.kind)
        if kind == "triples" and not of_rows(run):
            return f"{self.name} trains embeddings on triples: set the model's kind to embedding"
        if kind == "graph" and of_rows(run):
            return f"{self.name} trains embeddings on triples, and {run.dataset.name} is a graph"
        allowed = LINK_POLICIES if of_rows(run) else NODE_POLICIES
        if knobs.policy not in allowed:
            what = "embeddings" if of_rows(run) else "graphs"
            return f"{self.name} orders {what} by {', '.join(allowed)}, not {knobs.policy}"
        if knobs.partitions == 0:
            if not run.memory.host:
                return "partitions = 0 chooses them for a memory cap: set memory.host"
            if data is None:
                return None
            tuned = settled(knobs, run, data)
            if isinstance(tuned, str):
                return tuned
            knobs = tuned
        policy = policy_of(knobs, "comet" if knobs.policy == "auto" else knobs.policy, 0)
        found = link_problem(self.name, run) if of_rows(run) else None
        if of_rows(run) or knobs.policy != "auto":
            sizes = policy.partitions, policy.capacity, policy.logical
            found = found or policies.problems(policy.name, *sizes)
        if found or data is None:
            return found
        rows = (entity_rows if of_rows(run) else _rows)(data, run, knobs.partitions)
        found = rows.problem() if of_rows(run) else _graph_problem(knobs, run, data)
        if found or not run.memory.host:
            return found
        return too_large(_sizes(knobs, run, data), rows, policy.capacity, run.memory.host)

    def prepare(self, data: Any, run: RunSpec, cache: Path | None = None) -> None:
        """Refuse a run whose files do not fit the disk."""
        knobs = settled(self.knobs(run), run, data)
        if cache is None or isinstance(knobs, str):
            return
        links = of_rows(run)
        rows = (entity_rows if links else _rows)(data, run, knobs.partitions)
        edges = 12 * num_facts(data) if links else 8 * data.num_edges
        wanted = rows.file_bytes * (1 + (knobs.durable if links else 0)) + edges
        cache.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache).free
        if wanted > free:
            raise Unsupported(
                f"{self.name} writes {wanted / 1e9:.3g} GB of table and edges to {cache}, where "
                f"{free / 1e9:.3g} GB are free: choose a results folder on a larger disk"
            )

    def structure(self, data: Any, run: RunSpec, cache: Path | None = None) -> Any:
        place = link_structure if of_rows(run) else node_structure
        knobs = settled(self.knobs(run), run, data)
        if isinstance(knobs, str):
            raise Unsupported(knobs)
        return place(data, run, knobs)

    def plan(self, data: Any, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        knobs: OutOfCoreKnobs = self.knobs(run)
        if of_rows(run):
            return link_plan(
                data,
                run,
                structure,
                layout,
                on_disk=True,
                ahead=bool(knobs.read_ahead),
                staleness=knobs.staleness,
                copies=1 + knobs.durable,
                limit=knobs.disk,
            )
        return node_plan(data, run, structure, layout, knobs)


def of_rows(run: RunSpec) -> bool:
    """Whether a run trains a table of rows, rather than a stack of layers."""
    return MODELS.get(run.model.kind).built == "table"


def settled(knobs: OutOfCoreKnobs, run: RunSpec, data: Any) -> OutOfCoreKnobs | str:
    """The knobs with sizes chosen for the memory cap where none are given; or why none fit."""
    if knobs.partitions:
        return knobs
    found = tune(_sizes(knobs, run, data), run.memory.host, block=block_of(knobs.disk))
    if isinstance(found, str):
        return found
    return replace(knobs, partitions=found.partitions, buffer=found.buffer, logical=found.logical)


def _sizes(knobs: OutOfCoreKnobs, run: RunSpec, data: Any) -> Sizes:
    """What the memory of a run depends on."""
    return Sizes.of(run, data, ahead=bool(knobs.read_ahead), staleness=knobs.staleness)


def _rows(data: Any, run: RunSpec, partitions: int) -> Rows:
    """The table of features of a run."""
    return feature_rows(data, run, OutOfCoreKnobs(partitions=partitions))


def _graph_problem(knobs: OutOfCoreKnobs, run: RunSpec, data: Any) -> str | None:
    """What a graph's sizes do not allow."""
    if data.num_train == 0:
        return NO_SEEDS
    rows = feature_rows(data, run, knobs)
    if rows.problem():
        return rows.problem()
    least, held = training_partitions(data.num_train, rows), knobs.buffer or knobs.partitions
    if held > knobs.partitions:
        return f"buffer: found {held}, allowed at most the {knobs.partitions} partitions"
    if policy_name(knobs, data.num_train, rows) == "sequential" and held < least:
        return (
            f"buffer: found {held}, and the {data.num_train} training vertices fill {least} "
            f'partitions: allowed {least} or more, or policy = "dispersed"'
        )
    return None


APPROACH = OutOfCore()
