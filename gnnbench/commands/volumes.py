"""Say beforehand what partition parallelism and the mixture will send: either may be the less.

The mixture sends about the same whatever the graph, the partition what its cut asks for, so which
of them is frugal depends on the graph and on the ranks (fullgraph section 9).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gnnbench.approaches.base import GraphLike
    from gnnbench.results import PredictionRecord, Results
    from gnnbench.spec import RunSpec

SIDES = ("partition", "mixture")
MOST_EDGES = 4_000_000
"""Stored edges up to which counting halos takes seconds; larger graphs are left to `crossover`."""

Place = tuple[str, str, int]


def volume_lines(
    runs: Sequence[RunSpec], roots: Sequence[Path], results: Results | None = None
) -> Iterator[str]:
    """Yield a line per graph, model and rank count at which both approaches will run.

    With `results` their partitions are taken from its cache or kept there for the runs, and what
    has finished before is passed over. A graph that cannot be opened is left for the run to tell.
    """
    from gnnbench.commands.predict import open_any
    from gnnbench.errors import GnnbenchError

    cache = results.cache("shared") if results is not None else None
    graphs: dict[str, GraphLike | None] = {}
    for place, pair in _pairs(runs).items():
        if results is not None and all(_finished(run, results) for run in pair):
            continue
        ref = pair[0].graph
        if ref.name not in graphs:
            try:
                graphs[ref.name] = open_any(ref, roots, cache)
            except GnnbenchError:
                graphs[ref.name] = None
        graph = graphs[ref.name]
        if graph is None or graph.num_edges > MOST_EDGES:
            continue
        try:
            sent = [planned_bytes(run, graph, cache) for run in pair]
        except GnnbenchError:
            continue
        yield _line(place, *sent)


def predicted_lines(records: Iterable[PredictionRecord]) -> Iterator[str]:
    """Yield the same lines from predictions, whose plans have been counted already."""
    sent: dict[Place, dict[str, int]] = {}
    for record in records:
        run = record.run
        if run.approach in SIDES and record.bytes and run.ranks > 1:
            place = run.graph.name, run.model.name, run.ranks
            sent.setdefault(place, {}).setdefault(run.approach, sum(record.bytes[0].values()))
    for place, sides in sent.items():
        if len(sides) == len(SIDES):
            yield _line(place, *(sides[side] for side in SIDES))


def planned_bytes(run: RunSpec, graph: GraphLike, cache: Path | None = None) -> int:
    """Bytes that all ranks send in the first epoch, by the run's plan."""
    from gnnbench.approaches.base import Layout
    from gnnbench.approaches.names import APPROACHES

    card = APPROACHES.get(run.approach)
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    plan = card.plan(graph, run, card.structure(graph, run, cache), layout)
    return sum(plan.sent_bytes(0).values())


def _pairs(runs: Iterable[RunSpec]) -> dict[Place, tuple[RunSpec, RunSpec]]:
    """The first run of each side where both sides can run."""
    from gnnbench.approaches.names import APPROACHES

    found: dict[Place, dict[str, RunSpec]] = {}
    for run in runs:
        if run.approach not in SIDES or run.ranks < 2:
            continue
        if APPROACHES.get(run.approach).cannot_run(run) is None:
            place = run.graph.name, run.model.name, run.ranks
            found.setdefault(place, {}).setdefault(run.approach, run)
    return {
        place: (sides[SIDES[0]], sides[SIDES[1]])
        for place, sides in found.items()
        if len(sides) == len(SIDES)
    }


def _finished(run: RunSpec, results: Results) -> bool:
    record = results.load_run(run.run_id)
    return record is not None and record.status == "ok"


def _line(place: Place, partition: int, mixture: int) -> str:
    from gnnbench_reports import numbers

    graph, model, ranks = place
    if partition == mixture:
        told = "the same"
    else:
        less, more = sorted((partition, mixture))
        frugal = "mixture" if mixture < partition else "partition"
        told = f"{frugal} sends less" + (f", {more / less:.2f}x" if less else "")
    return (
        f"{graph}, {model}, {ranks} ranks: partition sends {numbers.size(partition)} per epoch, "
        f"mixture {numbers.size(mixture)}: {told}"
    )
