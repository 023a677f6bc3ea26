"""The run of ours that a published row describes: approach, knobs, model, batch, ranks, software.

The cards of approaches name the published systems that they stand for. A `Case` is all that a
prediction needs, so that rows of one configuration share a prediction. A row that describes
no case has a `Reason`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from gnnbench.approaches.names import APPROACHES
from gnnbench.data.profile import GraphProfile
from gnnbench.data.triples_profile import TriplesProfile
from gnnbench.errors import GnnbenchError
from gnnbench.models.names import MODELS
from gnnbench.published.counts import COUNTS, PartitionCount
from gnnbench.published.disk_counts import DISK_COUNTS, DISK_TIMES, DiskCount, disk_count
from gnnbench.published.disk_systems import LINK_MODELS
from gnnbench.published.metrics import check_metric
from gnnbench.published.page_counts import PAGE_COUNTS, PageCount, page_count
from gnnbench.published.places import cluster_of, completed, method_of, profile_of
from gnnbench.published.reason import NotModelled, Reason
from gnnbench.published.recipes import Recipe
from gnnbench.published.rows import PublishedRow
from gnnbench.published.software import NATIVE, Software
from gnnbench.published.stream_times import StreamMeasure, is_stream, stream_measure
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec

Count = PartitionCount | PageCount | DiskCount | StreamMeasure
"""What rows are predicted by without a plan: a count, or a time of counted operations."""
EPOCHS = 3
DROPOUT = 0.5
"""Of all published scripts for graphs in memory; its cost does not depend on the rate."""
_MOST = {"layers": 64, "hidden": 1_000_000, "gpus": 1024}
_MODELS = {"gcn": "gcn", "graphsage": "sage", "gat": "gat"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A configuration to predict.

    Args:
        run: what is trained, and by which approach.
        profile: of the graph, or of the triples.
        cluster: name of a built-in cluster.
        software: what the system's code does besides.
        method: of the partition, such as "metis-vol"; "" where the plan needs no such partition.
        ranks_per_host: None for as many as a host has devices.
        disk: of the catalogue; "" is that of the cluster.
    """

    run: RunSpec
    profile: GraphProfile | TriplesProfile
    cluster: str
    software: Software
    method: str = ""
    ranks_per_host: int | None = None
    disk: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for rows that one prediction serves."""
        curve = self.profile.halo if isinstance(self.profile, GraphProfile) else ()
        halo = tuple((p.parts, p.method, p.halo_per_node) for p in curve)
        names = (self.run.config_id, self.cluster, self.ranks_per_host, self.method, self.disk)
        return (*names, self.software, self.profile.name, halo)


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A published system: the approach that does the same, and how to read the rest of a row.

    Args:
        approach: its name.
        recipe: raises NotModelled.
    """

    approach: str
    recipe: Callable[[PublishedRow], Recipe]


def case_of(
    row: PublishedRow, epochs: Mapping[tuple[str, str, str], float] | None = None
) -> Case | Count | Reason:
    """What to predict for a row, or why it cannot be predicted.

    Args:
        row: as published.
        epochs: of whole trainings, where its table states them; see `stated_epochs`.
    """
    try:
        check_metric(row)
        if is_stream(row):
            return stream_measure(row, epochs or {})
        if row.metric in PAGE_COUNTS:
            return page_count(row)
        if row.metric in (*DISK_COUNTS, *DISK_TIMES):
            return disk_count(row)
        return _count(row) if row.metric in COUNTS else _case(row)
    except NotModelled as why:
        return why.reason


def system_of(row: PublishedRow) -> System:
    """The system that a row names, from the cards of approaches. Raises NotModelled."""
    name = row.system.lower()
    for approach in APPROACHES.names():
        # A card that extends another does not stand for what the other one stands for.
        for published in vars(type(APPROACHES.get(approach))).get("published", ()):
            if re.search(published.names, name):
                module, _, function = published.recipe.partition(":")
                return System(approach=approach, recipe=getattr(import_module(module), function))
    raise NotModelled("system not modelled", row.system)


def stated_heads(row: PublishedRow) -> int:
    """Attention heads by "heads=N" or "heads N" in the notes, else one."""
    found = re.search(r"\bheads[ =](\d+)", row.notes)
    return int(found[1]) if found and 0 < int(found[1]) <= 64 else 1


# -- cases ---------------------------------------------------------------------------------------


def _case(row: PublishedRow) -> Case:
    """The case of a row that measures time or memory."""
    row = completed(row)
    system = system_of(row)
    recipe = system.recipe(row)
    model, ranks = _configuration(row)
    ranks = recipe.ranks or ranks
    cluster = cluster_of(row, native=recipe.native_hosts)
    if recipe.software == NATIVE and "gloo" in cluster:
        raise NotModelled("hardware without a preset", f"{row.hardware}, other than through gloo")
    profile = _profile(row)
    run = RunSpec(
        suite="published",
        dataset=_dataset(profile),
        model=replace(model, norm=recipe.norm),
        batch=recipe.batch,
        training=TrainingSpec(epochs=EPOCHS, optimizer=recipe.optimizer),
        approach=system.approach,
        ranks=ranks,
        knobs=_knobs(system, recipe),
    )
    _check(run, profile, recipe.method)
    return Case(
        run=run,
        profile=profile,
        cluster=cluster,
        software=recipe.software,
        method=recipe.method,
        ranks_per_host=_ranks_per_host(row),
        disk=recipe.disk,
    )


def _profile(row: PublishedRow) -> GraphProfile | TriplesProfile:
    """The profile of a row's graph, or of its triples where the model scores facts."""
    found: GraphProfile | TriplesProfile = profile_of(row)
    links = row.model.lower() in LINK_MODELS
    if links != isinstance(found, TriplesProfile):
        what = "embeddings of a graph" if links else "layers over triples"
        raise NotModelled("model not modelled", f"{row.model} on {row.dataset}: {what}")
    return found


def _dataset(profile: GraphProfile | TriplesProfile) -> DatasetRef:
    if isinstance(profile, GraphProfile):
        return DatasetRef(name=profile.name, profile=profile.name)
    return DatasetRef(name=profile.name, profile=profile.name, kind=profile.kind)


def _configuration(row: PublishedRow) -> tuple[ModelSpec, int]:
    """Model and ranks of a row. Raises NotModelled if they are not stated."""
    if row.model.lower() in LINK_MODELS:
        return _links(row)
    kind = _MODELS.get(row.model.lower())
    if kind is None:
        raise NotModelled("model not modelled", row.model or "empty")
    hidden, heads = _width(row)
    layers, ranks = row.num_layers, row.ranks
    numbers = {"layers": layers, "hidden": hidden, "gpus": ranks}
    if layers is None or hidden is None or ranks is None:
        missing = [key for key, number in numbers.items() if number is None]
        found = ", ".join(f"{key} {getattr(row, key)!r}" for key in missing)
        raise NotModelled("configuration not stated", found)
    for key, most in _MOST.items():
        if (numbers[key] or 0) > most:
            found = f"{key} {getattr(row, key)}, at most {most}"
            raise NotModelled("configuration out of range", found)
    heads = heads if MODELS.get(kind).attention else 1
    model = ModelSpec(
        name=kind,
        kind=kind,
        hidden=hidden * heads,  # rows state the width of a head
        layers=layers,
        heads=heads,
        dropout=DROPOUT,
    )
    return model, ranks


def _width(row: PublishedRow) -> tuple[int | None, int]:
    """Width of a head, and heads: "32 x 4 heads", or a width and heads in the notes."""
    both = re.fullmatch(r"(\d{1,7}) ?x ?(\d{1,2}) heads", row.hidden)
    if both and int(both[1]) and 0 < int(both[2]) <= 64:
        return int(both[1]), int(both[2])
    return row.hidden_width, stated_heads(row)


def _links(row: PublishedRow) -> tuple[ModelSpec, int]:
    """A table of embeddings and its decoder, on one device unless a row says otherwise."""
    hidden = row.hidden_width
    if hidden is None or hidden > _MOST["hidden"]:
        raise NotModelled("configuration not stated", f"hidden {row.hidden!r}")
    decoder = LINK_MODELS[row.model.lower()]
    model = ModelSpec(name=decoder, kind="embedding", hidden=hidden, decoder=decoder)
    return model, row.ranks or 1


def _knobs(system: System, recipe: Recipe) -> dict[str, Any]:
    """The knobs that differ from their defaults, as run specs hold them."""
    problems: list[str] = []
    knobs = APPROACHES.get(system.approach).parse_knobs(recipe.knobs, system.approach, problems)
    if knobs is None:
        raise NotModelled("configuration out of range", "; ".join(problems))
    return knobs


def _check(run: RunSpec, profile: GraphProfile | TriplesProfile, method: str) -> None:
    """Raise NotModelled if the approach cannot do a run."""
    card, model = APPROACHES.get(run.approach), MODELS.get(run.model.kind)
    problems = [*card.problems(run), *model.problems(run.model)]
    why = problems[0] if problems else card.cannot_run(run, profile)
    if why:
        raise NotModelled(f"approach {card.name} cannot run it", why)
    if method and run.ranks > 1 and isinstance(profile, GraphProfile):
        _check_halo(profile, run.ranks, method)


def _check_halo(profile: GraphProfile, parts: int, method: str) -> None:
    try:
        profile.expected_halo(parts, method)
    except GnnbenchError as error:
        raise NotModelled("graph without a halo curve", str(error)) from None


def _ranks_per_host(row: PublishedRow) -> int | None:
    """Ranks on a host by "N host(s) x M GPUs" in the notes."""
    found = re.search(r"\b(\d+) host(?:\(s\)|s)? x (\d+) GPU", row.notes)
    return int(found[2]) if found and 0 < int(found[2]) <= 64 else None


def _count(row: PublishedRow) -> PartitionCount:
    """The partition of a row that counts vertices."""
    if not row.system.lower().startswith("metis partition"):
        raise NotModelled("system not modelled", row.system)
    if "(" not in row.system:
        raise NotModelled("configuration not stated", "objective of METIS")
    if row.ranks is None:
        raise NotModelled("configuration not stated", f"gpus {row.gpus!r}")
    found = PartitionCount(profile=profile_of(row), parts=row.ranks, method=method_of(row))
    _check_halo(found.profile, found.parts, found.method)
    return found
