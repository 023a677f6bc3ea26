"""Base class of approaches: card, typed knobs, rank rule, structure and plan."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gnnbench.approaches.card import Accepts, Look, Promise, Published
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.errors import suggest
from gnnbench.models.names import MODELS
from gnnbench.plan import Plan
from gnnbench.spec import BatchSpec, DatasetRef, ModelSpec, RunSpec, TaskSpec, TrainingSpec
from gnnbench.strict import build

GraphLike = Graph | GraphProfile
"""A graph, or the profile of one that is not there: both know the sizes that plans need."""
NO_SEEDS = (
    "the graph has no training vertices to draw batches from: give the dataset a split, or set "
    "num_train of its profile (advise: --set num_train=...)"
)
"""Why an approach that trains on batches cannot run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Placement of ranks on hosts, and the purpose of the plan.

    Args:
        world_size, ranks_per_host: ranks in all, and on each host.
        device: "cuda" where ranks compute on accelerators.
        performed: True if a run will be compared with the plan step by step. Each
            step of the plan must then be one call that a rank records.
    """

    world_size: int
    ranks_per_host: int
    device: str = "cpu"
    performed: bool = False

    @property
    def num_hosts(self) -> int:
        return -(-self.world_size // self.ranks_per_host)


class Approach(ABC):
    """One way to train. Instances are stateless; the runtime part is named, not imported.

    Where a method takes `data`, it is a dataset or its profile, of a kind that the card accepts.

    Attributes:
        name: as suites write it.
        title: as figures and tables write it.
        paper: authors, title, venue.
        summary: one line.
        promise: relation of its results to those of the reference (see `card.Promise`).
        accepts: which datasets, tasks and models it can train.
        look: its colour and marker in every figure.
        published: systems of papers that do the same.
        knobs_type: a frozen dataclass whose fields are the knobs; metadata give bounds and choices.
        runtime: "module:Class" of the trainer.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str]
    promise: ClassVar[Promise]
    accepts: ClassVar[Accepts] = Accepts()
    look: ClassVar[Look] = Look()
    published: ClassVar[tuple[Published, ...]] = ()
    knobs_type: ClassVar[type[Any]]
    runtime: ClassVar[str]

    @abstractmethod
    def examples(self) -> list[RunSpec]:
        """Tiny runs that conformance performs in both worlds; see `example`."""

    def probes(self, probe: Probe) -> list[RunSpec]:
        """Runs on a probe's workload that this approach offers to calibrate operations with.

        None by default: calibration then trains the examples on workloads of several sizes. An
        approach whose datasets are no graphs offers runs on generated datasets of `probe.number`
        different sizes.
        """
        return []

    @property
    def family(self) -> str:
        """The package that the card lives in, such as "whole_graph"."""
        return type(self).__module__.rpartition(".")[0].rpartition(".")[2]

    # -- knobs -----------------------------------------------------------------------------------

    def parse_knobs(
        self, table: Mapping[str, Any], where: str, problems: list[str]
    ) -> dict[str, Any] | None:
        """Return the knobs that differ from their defaults, adding every problem found."""
        knobs = build(self.knobs_type, table, where, problems)
        return None if knobs is None else changed(knobs)

    def knobs(self, run: RunSpec) -> Any:
        """The typed knobs of a run whose spec was checked before."""
        return self.knobs_type(**{k: _frozen(v) for k, v in run.knobs.items()})

    def knob_names(self) -> Collection[str]:
        return [spec.name for spec in dataclasses.fields(self.knobs_type)]

    def reference(self, run: RunSpec) -> str:
        """The approach that results are compared with; its own name is its one-rank form."""
        return self.promise.reference

    def num_periods(self, run: RunSpec) -> int:
        """The periods of its plan."""
        return run.training.increments or run.training.epochs

    def variants(self, run: RunSpec) -> list[dict[str, Any]]:
        """Knobs between which memory and time decide, for advice on machines; defaults first."""
        return [{}]

    def variants_for_cap(self, run: RunSpec) -> list[dict[str, Any]]:
        """Knobs that choose sizes for `run.memory.host`, tried where no other variant fits."""
        return []

    # -- what it can run -------------------------------------------------------------------------

    def problems(self, run: RunSpec) -> list[str]:
        """Problems of a run's knobs together with its model, reported when the suite is read."""
        return []

    def cannot_run(self, run: RunSpec, data: Any = None) -> str | None:
        """Reason why this run is impossible, or None. Called before and after the data is open."""
        return self.accepts.refusal(self.name, run, MODELS.get(run.model.kind)) or self.skip_reason(
            run, data
        )

    def skip_reason(self, run: RunSpec, data: Any = None) -> str | None:
        """Reason from the approach's rank rule or knobs; a part of `cannot_run`."""
        return None

    # -- structure and plan ----------------------------------------------------------------------

    def prepare(  # noqa: B027 - most approaches have nothing to prepare
        self, data: Any, run: RunSpec, cache: Path | None = None
    ) -> None:
        """Compute shared, expensive structure once before ranks start, for example a partition."""

    @abstractmethod
    def structure(self, data: Any, run: RunSpec, cache: Path | None = None) -> Any:
        """Decide which vertices, edges and blocks each rank handles; for a profile only sizes."""

    @abstractmethod
    def plan(self, data: Any, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        """Write the steps of every rank. `data` is of a kind that the card accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A workload of given sizes on which calibration measures an approach's operations.

    Args:
        run: a workload; the approach replaces approach, knobs and, if it must, the model.
        number: of the probe, so that settings can vary with it.
        ranks: how many ranks probe together.
    """

    run: RunSpec
    number: int = 0
    ranks: int = 1

    @property
    def num_nodes(self) -> int:
        """Vertices of the generated graph."""
        options = self.run.dataset.options
        return int(options.get("num_nodes") or 2 ** int(options["scale"]))


def changed(knobs: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    found = {}
    for spec in dataclasses.fields(knobs):
        value = getattr(knobs, spec.name)
        if spec.default is dataclasses.MISSING or value != spec.default:
            found[spec.name] = value
    return found


def shared_knobs(
    table: Mapping[str, Any],
    cards: Mapping[str, Approach],
    known: Mapping[str, list[str]],
    where: str,
    problems: list[str],
) -> dict[str, dict[str, Any]]:
    """Assign the knobs of one [[runs]] entry to its approaches.

    A table under an approach's name sets knobs of that approach only; any other knob is set for
    every approach of the entry that has it. Example: { order = "min_width", sampled = { prefetch
    = 2 } }.

    Args:
        table: the entry's `knobs`.
        cards: the approaches of the entry.
        known: every knob there is, with the approaches that have it.
        where: of the table, for messages.
        problems: gets a line for each knob that none of the approaches has.
    """
    dealt: dict[str, dict[str, Any]] = {name: {} for name in cards}
    every = {name for owners in known.values() for name in owners} | set(cards)
    for key, value in table.items():
        if isinstance(value, Mapping):
            if key in dealt:
                dealt[key].update(value)
            elif key not in every:
                problems.append(f"{where}.{key}: unknown approach, {suggest(key, every)}")
            else:  # of an approach that this entry does not run: its keys must exist all the same
                own = [knob for knob, owners in known.items() if key in owners]
                problems += [
                    f"{where}.{key}.{knob}: unknown knob, {suggest(knob, own)}"
                    for knob in value
                    if knob not in own
                ]
            continue
        owners = [name for name, card in cards.items() if key in card.knob_names()]
        for name in owners:
            dealt[name].setdefault(key, value)
        if not owners and key in known:
            problems.append(
                f"{where}.{key}: a knob of {', '.join(known[key])}, and this entry runs "
                f"{', '.join(cards)}"
            )
        elif not owners:
            problems.append(f"{where}.{key}: unknown knob, {suggest(key, known)}")
    return dealt


_TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "graph": (
        "planted_partition",
        {"num_nodes": 90, "mean_degree": 6.0, "num_classes": 4, "num_features": 7},
    ),
    "stream": ("synthetic_stream", {"num_nodes": 60, "num_edges": 600, "num_edge_features": 5}),
    "triples": (
        "synthetic_triples",
        {"num_entities": 50, "num_relations": 4, "num_triples": 600, "spread": 3},
    ),
}


def example(
    approach: str,
    ranks: int = 2,
    *,
    model: Mapping[str, Any] | None = None,
    knobs: Mapping[str, Any] | None = None,
    batch: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    task: Mapping[str, Any] | None = None,
    kind: str = "graph",
) -> RunSpec:
    """A tiny run for conformance: float64, three epochs, on a generated dataset.

    Args:
        approach: its name.
        ranks: how many.
        model, batch, training, task: fields that differ from the example's own.
        knobs: of the approach.
        options: of the generator.
        kind: of the dataset: "graph" (90 vertices in four classes), "stream" (600 events between
            60 vertices) or "triples" (600 facts on 50 entities).
    """
    generator, drawn = _TINY[kind]
    return RunSpec(
        suite="examples",
        dataset=DatasetRef(
            name="tiny", generator=generator, options={**drawn, **dict(options or {})}
        ),
        task=TaskSpec(**dict(task or {})),
        model=ModelSpec(name="m", **{"hidden": 8, **dict(model or {})}),
        batch=BatchSpec(**dict(batch or {})),
        training=TrainingSpec(
            **{"precision": "float64", "lr": 0.05, "epochs": 3, "seed": 7, **dict(training or {})}
        ),
        approach=approach,
        ranks=ranks,
        knobs=dict(knobs or {}),
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
