"""A question before a purchase, the choices that are judged for it, and the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gnnbench.approaches.names import APPROACHES
from gnnbench.machines import Machine
from gnnbench.published.convergence import Convergence, convergence
from gnnbench.spec import RunSpec
from gnnbench_simulator.predict import Prediction

ALIKE = 0.5
"""Optimiser steps per epoch that differ by more than this share are told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked.

    Args:
        run: the workload; approach, knobs and ranks are replaced.
        epochs: of the training that is paid for.
        deadline_s: the whole training must end by then, at the upper end of its interval.
        budget_usd: the whole training must cost no more, at the upper end of its interval.
        events_per_s: of a stream, so many must be learnt from in a second, at the lower end.
        events: of an epoch of a stream; 0 of other datasets.
        smallest: fewest devices first, of those that meet deadline and budget.
        spot: rent at spot rates.
        converged: train each choice for the epochs that published trainings took to converge; for
            `epochs` where none are known.
        accuracy: train until this accuracy on the test split; as `converged` where a published
            training reached it.
    """

    run: RunSpec
    epochs: int = 100
    deadline_s: float | None = None
    budget_usd: float | None = None
    events_per_s: float | None = None
    events: int = 0
    smallest: bool = False
    spot: bool = False
    converged: bool = False
    accuracy: float | None = None

    def fact(self, run: RunSpec, steps_per_epoch: float) -> Convergence | None:
        """The published training that decides the epochs of a run; None where none does.

        One optimiser step per epoch trains on the whole graph. The facts are of full-graph and of
        neighbour-sampled training: approaches with semantics of their own, and other batches, have
        none.
        """
        card = APPROACHES.get(run.approach)
        batch = 0 if steps_per_epoch <= 1 else run.batch.size
        if not self.converged and self.accuracy is None:
            return None
        if card.promise.kind == "own" or (batch and not card.accepts.batch):
            return None
        found = convergence(run.dataset.profile or run.dataset.name, batch)
        if found is None or self.accuracy is None:
            return found
        reached = found.accuracy is not None and found.accuracy >= self.accuracy
        return found if reached else None

    @property
    def limited(self) -> bool:
        limits = (self.deadline_s, self.budget_usd, self.events_per_s)
        return any(limit is not None for limit in limits)

    def meets(self, choice: Choice) -> bool:
        """Whether the upper end of a choice's interval meets deadline, budget and event rate."""
        usd = choice.price(choice.high_s)
        if self.events_per_s is not None and self.rate(choice, choice.high_s) < self.events_per_s:
            return False
        if self.deadline_s is not None and choice.high_s * choice.periods > self.deadline_s:
            return False
        return self.budget_usd is None or (usd is not None and usd <= self.budget_usd)

    def rate(self, choice: Choice, period_s: float) -> float:
        """Events of a stream per second if a period takes so long; 0 of other datasets."""
        epoch_s = period_s * choice.periods / choice.epochs
        return self.events / epoch_s if epoch_s > 0 else 0.0


@dataclass(slots=True, kw_only=True)
class Choice:
    """One approach on one machine.

    Times are seconds: `period_s` of a period, `total_s` of the whole training; intervals are at
    90 %. `steps_per_epoch` are optimiser steps; `epochs` are those paid for, by the published
    training `fact` if there is one. `memory` is the entry of the rank with the least room, see
    `memory.predict_memory`. `usd` is None where the machine has no price. `lacks` names
    what the machine does not have, such as a disk; `sized` what a memory cap made an approach
    choose.
    """

    machine: Machine
    run: RunSpec
    promise: str
    steps_per_epoch: float
    epochs: float
    periods: float
    fact: Convergence | None
    memory: dict[str, Any]
    usd_per_hour: float | None
    period_s: float = 0.0
    low_s: float = 0.0
    high_s: float = 0.0
    prediction: Prediction | None = None
    lacks: str = ""
    sized: str = ""

    @property
    def approach(self) -> str:
        """The approach, and the knobs that differ from its defaults or what they chose."""
        knobs = self.sized or ", ".join(f"{value}" for value in self.run.knobs.values())
        return f"{self.run.approach} ({knobs})" if knobs else self.run.approach

    @property
    def reference(self) -> bool:
        """Whether the approach is what others are compared with."""
        return APPROACHES.get(self.run.approach).promise.reference == self.run.approach

    @property
    def total_s(self) -> float:
        return self.period_s * self.periods

    @property
    def usd(self) -> float | None:
        return self.price(self.period_s)

    def price(self, period_s: float) -> float | None:
        """USD of the whole training if a period takes so long."""
        return None if self.usd_per_hour is None else self.usd_per_hour * self.hours(period_s)

    def hours(self, period_s: float) -> float:
        return period_s * self.periods / 3600.0

    @property
    def energy(self) -> dict[str, Any] | None:
        """Joules of the whole training, see `energy.Energy`; None where it is not known."""
        if self.prediction is None or not self.prediction.energy:
            return None
        found = dict(self.prediction.energy)
        return found | {k: found[k] * self.periods for k in ("joules", "low_j", "high_j")}

    def like(self, other: Choice) -> bool:
        """Whether both take about as many optimiser steps per epoch."""
        few, many = sorted((self.steps_per_epoch, other.steps_per_epoch))
        return many <= (1 + ALIKE) * few

    @property
    def out_of_memory(self) -> float:
        return max(float(space["p_out_of_memory"]) for space in self.memory["spaces"].values())

    @property
    def missing_bytes(self) -> int:
        """What the tightest memory lacks; negative is headroom."""
        return int(self.memory["judged_bytes"] - self.memory["limit_bytes"])


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledOut:
    """A machine on which nothing can run, with the choice that came closest, and a way out."""

    machine: Machine
    reason: str
    closest: Choice | None = None
    way_out: str = ""


@dataclass(slots=True, kw_only=True)
class Advice:
    """The answer.

    Attributes:
        best: the choice to take; None if nothing fits.
        exact: the best choice that trains exactly.
        unlike: the best choice with another number of optimiser steps per epoch.
        ranked: the best choice of each machine, best first.
        approaches: all choices on the machine of `best`, best first.
        unfit: approaches that do not fit on that machine.
        ruled_out: machines on which nothing runs.
        refusals: approaches that cannot run at all, and why.
        missed: what keeps the best from meeting deadline or budget; "" if it meets them.
        tried: choices that were judged.
    """

    question: Question
    best: Choice | None
    exact: Choice | None
    unlike: Choice | None
    ranked: list[Choice]
    approaches: list[Choice]
    unfit: list[Choice]
    ruled_out: list[RuledOut]
    refusals: dict[str, str]
    missed: str = ""
    tried: int = 0
