"""The statements that conformance checks for every approach; each raises `Broken`.

Statements are checked on an approach's own examples. `keeps_its_promise` reads the promise from the
card:

exact       losses, parameters and metrics equal the reference's
unbiased    with one linear layer, the mean of its outputs over many draws is the reference's
            output; with the knobs of its limit it is exact
stale       with constant parameters, its losses equal the reference's after as many epochs as
            values are late in all layers together; with its limit it is exact
own         with the knobs of its limit it is exact
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gnnbench.approaches.base import Approach, Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.data.source import Library
from gnnbench.errors import GnnbenchError
from gnnbench.metrics import TASKS
from gnnbench.models.names import MODELS
from gnnbench.plan import Plan
from gnnbench.spec import DEFAULT_TASKS, RunSpec
from gnnbench_runtime.conformance.device import perform_off_the_host
from gnnbench_runtime.conformance.perform import Performance
from gnnbench_runtime.conformance.pool import Pools
from gnnbench_runtime.held import compare, planned_bytes

_HOUSE = "gnnbench_runtime.conformance.perform"
_LOSS, _PARAMETERS = 1e-9, 1e-8
"""Largest difference of losses and parameters in float64 that rounding explains."""
_DRAWS = 400
_SIGMAS = 6.0
"""Standard errors that a mean over draws may be off: one in a billion entries is, by chance."""


class Broken(AssertionError):
    """A statement does not hold of an approach."""


@dataclass(slots=True, eq=False)
class Ranks:
    """Performs runs on pools of ranks and caches the results."""

    pools: Pools = field(default_factory=Pools)
    _known: dict[str, list[Performance]] = field(default_factory=dict)

    def perform(self, run: RunSpec, data: Any, *, again: bool = False) -> list[Performance]:
        """What every rank did; `again` repeats a run instead of using the cached result."""
        key = repr(run)
        if again or key not in self._known:
            found = self.pools.of(run.ranks).run(f"{_HOUSE}:perform", run, data)
            if again:
                return found
            self._known[key] = found
        return self._known[key]

    def resumed(self, run: RunSpec, data: Any) -> list[Any]:
        """What every rank learns when the run is interrupted after its first period."""
        return self.pools.of(run.ranks).run(f"{_HOUSE}:resumed", run, data)

    def outputs(self, run: RunSpec, data: Any, periods: int) -> list[Any]:
        """Vertex ids and outputs of each rank and period."""
        return self.pools.of(run.ranks).run(f"{_HOUSE}:outputs", run, data, periods)


@dataclass(slots=False, eq=False)
class Trial:
    """One statement about one example of an approach."""

    statement: Callable[[Trial], None]
    approach: Approach
    number: int
    run: RunSpec
    ranks: Ranks

    def __str__(self) -> str:
        return f"{self.approach.name}-{self.number}-{self.statement.__name__}"

    def check(self) -> None:
        """Raise `Broken` with what was found and what was expected."""
        self.statement(self)

    @cached_property
    def data(self) -> Any:
        return Library([]).open(self.run.dataset)

    @cached_property
    def plan(self) -> Plan:
        layout = Layout(world_size=self.run.ranks, ranks_per_host=self.run.ranks)
        structure = self.approach.structure(self.data, self.run)
        return self.approach.plan(self.data, self.run, structure, layout)

    def performed(self) -> list[Performance]:
        return self.ranks.perform(self.run, self.data)

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise Broken(f"{self.approach.name}, example {self.number}: {message}")


def trials(name: str, ranks: Ranks | None = None) -> list[Trial]:
    """All statements about all examples of an approach."""
    approach, shared = APPROACHES.get(name), ranks or Ranks()
    return [
        Trial(statement, approach, number, run, shared)
        for number, run in enumerate(approach.examples())
        for statement in STATEMENTS
    ]


# -- statements ----------------------------------------------------------------------------------


def can_run(trial: Trial) -> None:
    """Its examples are sound: nothing is wrong with them, and the approach does not refuse them."""
    problems = trial.approach.problems(trial.run)
    trial.require(not problems, f"problems of its own example: {problems}")
    reason = trial.approach.cannot_run(trial.run, trial.data)
    trial.require(reason is None, f"refuses its own example: {reason}")


def performs_its_plan(trial: Trial) -> None:
    """Each rank performs the steps of the plan: names, order in a lane, bytes and flops."""
    trial.plan.validate()
    performed = trial.performed()
    for rank, found in enumerate(performed):
        try:
            compare(trial.plan, found.rows, rank)
        except GnnbenchError as error:
            raise Broken(f"{trial.approach.name}, example {trial.number}: {error}") from None
    if trial.plan.counted:
        for period, planned in enumerate(planned_bytes(trial.plan)):
            moved: dict[str, int] = {}
            for found in performed:
                for key, size in found.moved[period].items():
                    moved[key] = moved.get(key, 0) + size
            planned = {key: size for key, size in planned.items() if size or key in moved}
            trial.require(moved == planned, f"moved {moved} in period {period}, planned {planned}")


def keeps_its_promise(trial: Trial) -> None:
    """See the module."""
    promise = trial.approach.promise
    if promise.exact:
        _equals(trial, trial.run, _reference(trial, trial.run))
        return
    if promise.limit is not None or promise.limit_batch is not None:
        limit = _with_limit(trial)
        _equals(trial, limit, _reference(trial, limit))
    if promise.kind == "unbiased":
        _is_unbiased(trial)
    elif promise.kind == "stale":
        _is_stale(trial)


def ranks_agree(trial: Trial) -> None:
    """Losses, learnt parameters and metrics are the same on every rank."""
    first, *others = trial.performed()
    for rank, other in enumerate(others, start=1):
        trial.require(other.losses == first.losses, f"ranks 0 and {rank} report unlike losses")
        trial.require(
            np.array_equal(other.learnt, first.learnt), f"ranks 0 and {rank} learnt unlike values"
        )
        trial.require(other.metrics == first.metrics, f"ranks 0 and {rank} report unlike metrics")


def repeats_itself(trial: Trial) -> None:
    """The same run twice gives the same losses and parameters, bit for bit."""
    first = trial.performed()[0]
    second = trial.ranks.perform(trial.run, trial.data, again=True)[0]
    trial.require(first.losses == second.losses, "a second performance has other losses")
    trial.require(
        np.array_equal(first.learnt, second.learnt), "a second performance learns other values"
    )


def resumes(trial: Trial) -> None:
    """A trainer that restores the state after the first period learns what an unbroken run does."""
    for rank, learnt in enumerate(trial.ranks.resumed(trial.run, trial.data)):
        whole = trial.performed()[rank].learnt
        trial.require(
            np.array_equal(learnt, whole), f"rank {rank} learns other values when it is resumed"
        )


def learns(trial: Trial) -> None:
    """Losses are finite, parameters move, and the task's metrics are there for the test split."""
    found = trial.performed()[0]
    trial.require(bool(np.isfinite(found.losses).all()), f"losses {found.losses}")
    if len(found.losses) > 1:
        trial.require(len(set(found.losses)) > 1, "its loss never changes")
    primary = f"test_{TASKS[_task(trial)].primary}"
    trial.require(primary in found.metrics, f"no {primary} among {sorted(found.metrics)}")


def plans_its_memory(trial: Trial) -> None:
    """The plan's buffers are at least as large as the tensors alive at once, in both phases."""
    planned = trial.plan.peaks([trial.plan.spaces()], evaluates=True)[0]
    for rank, found in enumerate(trial.performed()):
        for phase, lived, size in (
            ("training", found.peak_bytes, planned.training[rank]),
            ("the evaluation", found.evaluation_peak_bytes, planned.evaluation[rank]),
        ):
            trial.require(
                lived <= size + _LOOSE_BYTES,
                f"rank {rank}: {lived} bytes of tensors lived at once in {phase}, the plan has "
                f"{size}",
            )


def runs_off_the_host(trial: Trial) -> None:
    """A period and an evaluation run on a device whose values the host cannot read."""
    for rank in range(trial.run.ranks):
        try:
            rows = perform_off_the_host(trial.run, trial.data, rank)
        except Exception as error:
            raise Broken(
                f"{trial.approach.name}, example {trial.number}: rank {rank} on a device that the "
                f"host cannot read: {type(error).__name__}: {error}"
            ) from error
        trial.require(bool(rows), f"rank {rank} records no step on a device")


def _task(trial: Trial) -> str:
    return trial.run.task_kind or DEFAULT_TASKS[trial.data.kind]


_LOOSE_BYTES = 1024
"""Loose bytes: scalars and index lists of a few entries, which no plan has as buffers."""

STATEMENTS: tuple[Callable[[Trial], None], ...] = (
    can_run,
    performs_its_plan,
    keeps_its_promise,
    ranks_agree,
    repeats_itself,
    resumes,
    learns,
    plans_its_memory,
    runs_off_the_host,
)


# -- promises ------------------------------------------------------------------------------------


def _reference(trial: Trial, run: RunSpec) -> RunSpec:
    """The same workload by the reference of the promise."""
    name = trial.approach.reference(run)
    if name == run.approach:
        return dataclasses.replace(run, ranks=1)
    ranks = run.ranks
    if APPROACHES.get(name).cannot_run(dataclasses.replace(run, approach=name, knobs={})):
        ranks = 1
    return dataclasses.replace(run, approach=name, ranks=ranks, knobs={})


def _with_limit(trial: Trial) -> RunSpec:
    promise, run = trial.approach.promise, trial.run
    fields = dict(promise.limit_batch or {})
    if "fanouts_from_seeds" in fields:
        fanouts = fields["fanouts_from_seeds"]
        fields["fanouts_from_seeds"] = (*fanouts, *fanouts[-1:] * run.model.layers)[
            : run.model.layers
        ]
    batch = dataclasses.replace(run.batch, **fields)
    # Dropout is keyed by the step; approaches take other steps until they reach their limit.
    model = dataclasses.replace(run.model, dropout=0.0, input_dropout=0.0)
    knobs = {**run.knobs, **(promise.limit or {})}
    ranks = promise.limit_ranks or run.ranks
    return dataclasses.replace(run, model=model, knobs=knobs, batch=batch, ranks=ranks)


def _equals(trial: Trial, run: RunSpec, reference: RunSpec) -> None:
    """Losses, parameters and metrics of two runs are equal up to rounding in float64."""
    found = trial.ranks.perform(run, trial.data)[0]
    wanted = trial.ranks.perform(reference, trial.data)[0]
    off = np.abs(np.subtract(found.losses, wanted.losses)).max()
    trial.require(off <= _LOSS, f"losses differ from {reference.approach}'s by {off:.3g}")
    trial.require(
        found.learnt.shape == wanted.learnt.shape,
        f"learns {found.learnt.size} parameters, {reference.approach} {wanted.learnt.size}",
    )
    off = np.abs(found.learnt - wanted.learnt).max()
    trial.require(off <= _PARAMETERS, f"parameters differ from {reference.approach}'s by {off:.3g}")
    trial.require(
        found.metrics == wanted.metrics,
        f"metrics {found.metrics}, {reference.approach} has {wanted.metrics}",
    )


def _is_unbiased(trial: Trial) -> None:
    """With one linear layer the mean output of a vertex is the reference's: sums are linear."""
    card = MODELS.get(trial.run.model.kind)
    if card.attention:
        return  # a softmax over drawn neighbours has another mean; the card's text says so
    fanouts = trial.run.batch.fanouts_from_seeds[:1]
    run = dataclasses.replace(
        trial.run,
        model=dataclasses.replace(
            trial.run.model, layers=1, dropout=0.0, input_dropout=0.0, norm="none"
        ),
        batch=dataclasses.replace(trial.run.batch, fanouts_from_seeds=fanouts),
        knobs={**trial.run.knobs, **(trial.approach.promise.unbiased_with or {})},
    )
    data = trial.data
    [whole] = trial.ranks.outputs(_reference(trial, run), data, 1)
    exact = _by_vertex(whole)
    drawn: dict[int, list[Any]] = {}
    for rank in trial.ranks.outputs(run, data, _DRAWS):
        for ids, values in rank:
            for vertex, row in zip(ids.tolist(), values, strict=True):
                drawn.setdefault(vertex, []).append(row)
    seen = [vertex for vertex, rows in drawn.items() if len(rows) >= 20]
    trial.require(len(seen) >= 10, f"only {len(seen)} vertices were drawn 20 times or more")
    for vertex in seen:
        rows = np.array(drawn[vertex])
        error = np.abs(rows.mean(0) - exact[vertex])
        allowed = _SIGMAS * rows.std(0, ddof=1) / np.sqrt(len(rows)) + _LOSS
        trial.require(
            bool((error <= allowed).all()),
            f"the mean output of vertex {vertex} over {len(rows)} draws is off by "
            f"{(error / np.maximum(allowed / _SIGMAS, 1e-300)).max():.1f} standard errors",
        )


def _by_vertex(parts: Sequence[Any]) -> dict[int, Any]:
    return dict(_pairs(parts))


def _pairs(parts: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    for ids, values in parts:
        yield from zip(ids.tolist(), values, strict=True)


def _is_stale(trial: Trial) -> None:
    """With parameters that stand still, old values are those of today once they have travelled."""
    promise, layers = trial.approach.promise, trial.run.model.layers
    settled = 2 * promise.by * layers
    run = dataclasses.replace(
        trial.run,
        model=dataclasses.replace(trial.run.model, dropout=0.0, input_dropout=0.0),
        knobs={},
        training=dataclasses.replace(
            trial.run.training, optimizer="sgd", lr=0.0, epochs=settled + 2
        ),
    )
    found = trial.ranks.perform(run, trial.data)[0]
    wanted = trial.ranks.perform(_reference(trial, run), trial.data)[0]
    off = np.abs(np.subtract(found.losses, wanted.losses))[settled:].max()
    trial.require(off <= _LOSS, f"after {settled} epochs its losses are off by {off:.3g}")
