"""Advice before a purchase: which machine and approach, how long, how much, does it fit.

Every machine is tried with every approach and each of its variants. Memory is judged first; what
fits is timed without its interval, and the best of each machine are then predicted in full. Plans
and structures are shared between machines, because a plan knows nothing of constants.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnnbench.approaches.names import APPROACHES
from gnnbench.errors import Unsupported
from gnnbench.machines import Machine
from gnnbench.models.names import MODELS
from gnnbench.published.convergence import Convergence, convergence
from gnnbench.spec import RunSpec
from gnnbench_simulator.memory import P_OUT_OF_MEMORY, judge_worst, least_room
from gnnbench_simulator.planner import SIMULATED_EPOCHS, Planned, Planner
from gnnbench_simulator.predict import Prediction, estimate_together, predict_plan

TIED = 0.05
"""Choices on a machine within this share of its best are tied: an exact approach wins."""
ALIKE = 0.5
"""Optimiser steps per epoch that differ by more than this share are told apart."""
HOPELESS = 30
"""Approaches that take so many times as long as the best on its machine get no interval."""
FINALISTS = 16
"""Machines whose best choices are predicted in full."""
LEDGER_BLOCKS = 2_000
"""Blocks of equal iterations in a row from which the time of each step is known."""
_MORE = (2, 4, 8)
"""Multiples of the devices that are tried where nothing fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked.

    Args:
        run: the workload; approach, knobs and ranks are replaced.
        epochs: of the training that is paid for.
        deadline_s: the whole training must end by then, at the upper end of its interval.
        budget_usd: the whole training must cost no more, at the upper end of its interval.
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
        return self.deadline_s is not None or self.budget_usd is not None

    def meets(self, choice: Choice) -> bool:
        """Whether the upper end of a choice's interval meets deadline and budget."""
        usd = choice.price(choice.high_s)
        if self.deadline_s is not None and choice.high_s * choice.periods > self.deadline_s:
            return False
        return self.budget_usd is None or (usd is not None and usd <= self.budget_usd)


@dataclass(slots=True, kw_only=True)
class Choice:
    """One approach on one machine.

    Times are seconds: `period_s` of a period, `total_s` of the whole training; intervals are at
    90 %. `steps_per_epoch` are optimiser steps; `epochs` are those paid for, by the published
    training `fact` if there is one. `memory` is the entry of the rank with the least room, see
    `memory.predict_memory`. `usd` is None where the machine has no price. `lacks` names
    what the machine does not have, such as a disk.
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

    @property
    def approach(self) -> str:
        """The approach, and the knobs that differ from its defaults."""
        knobs = ", ".join(f"{value}" for value in self.run.knobs.values())
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


def advise(
    question: Question,
    data: Any,
    machines: Sequence[Machine],
    approaches: Iterable[str] = (),
    cache: Path | None = None,
) -> Advice:
    """Answer a question; `data` is a dataset or a profile, `cache` a folder for partitions.

    Raises:
        UnknownName: an approach does not exist.
    """
    named = [APPROACHES.get(name).name for name in approaches]
    names = named or that_can(question.run)
    search = _Search(question, data, names, cache)
    by_machine: list[tuple[Machine, list[Choice]]] = []
    ruled_out: list[RuledOut] = []
    every_tried = [(machine, search.choices(machine)) for machine in machines]
    # All choices are estimated before any is predicted in full: a plan is replayed once for all
    # machines.
    search.estimate([c for _, tried in every_tried for c in tried])
    timed = search.converging([c for _, tried in every_tried for c in tried if c.period_s > 0])
    for machine, tried in every_tried:
        fitting = [choice for choice in tried if id(choice) in timed]
        if fitting:
            by_machine.append((machine, sorted(fitting, key=search.order)))
        else:
            ruled_out.append(search.ruled_out(machine, tried))
    by_machine.sort(key=lambda item: search.order(item[1][0]))
    for number, (_, choices) in enumerate(by_machine):
        first = search.preferred(choices)
        # The preferred choice goes first; the rest keeps its order.
        choices.sort(key=lambda choice: choice is not first)
        # Full predictions, with intervals and memory by buffer, are dear: only finalists get them.
        if number < FINALISTS:
            search.predict(first)
    ranked = sorted((choices[0] for _, choices in by_machine), key=search.order)
    every = sorted((c for _, choices in by_machine for c in choices), key=search.order)
    best, missed = search.best(every)
    own: list[Choice] = []
    unfit: list[Choice] = []
    if best is not None:
        unfit = [c for c in search.choices(best.machine) if c.out_of_memory > P_OUT_OF_MEMORY]
        own = next(choices for machine, choices in by_machine if machine == best.machine)
        for choice in own:
            # A choice thirty times slower needs no interval to be ruled out.
            if choice.total_s <= HOPELESS * best.total_s:
                search.predict(choice)
        own = sorted(search.distinct(own), key=search.order)
        ranked = [best if choice.machine == best.machine else choice for choice in ranked]
        # A stable sort: those that meet the limits stay in their order.
        ranked.sort(key=lambda choice: not question.meets(choice))
    exact = search.first([choice for choice in every if choice.promise == "exact"])
    others = [c for c in every if best is not None and c.run.approach != best.run.approach]
    unlike = search.first([c for c in others if best is not None and not c.like(best)])
    return Advice(
        question=question,
        best=best,
        exact=exact,
        unlike=unlike,
        ranked=ranked,
        approaches=own,
        unfit=unfit,
        ruled_out=ruled_out,
        refusals=search.refusals,
        missed=missed,
        tried=search.tried,
    )


def that_can(run: RunSpec) -> list[str]:
    """The approaches that accept dataset, task and model."""
    model = MODELS.get(run.model.kind)
    cards = [APPROACHES.get(name) for name in APPROACHES.names()]
    return [card.name for card in cards if card.accepts.refusal(card.name, run, model) is None]


class _Search:
    """Plans, needs and times of choices, each found once."""

    def __init__(
        self, question: Question, data: Any, names: Sequence[str], cache: Path | None
    ) -> None:
        self.question, self.names = question, names
        self.refusals: dict[str, str] = {}
        self.tried = 0
        self._ran: set[str] = set()
        self._planner = Planner(data, cache)

    def choices(self, machine: Machine) -> list[Choice]:
        """Every approach and variant that can run on a machine, its memory judged."""
        found = []
        for name in self.names:
            card = APPROACHES.get(name)
            for knobs in card.variants(self._run(name, machine.ranks, {})):
                planned = self._planned(name, knobs, machine)
                if isinstance(planned, str):
                    self.refusals.setdefault(name, planned)
                    continue
                self._ran.add(name)
                found.append(self._choice(planned, machine, card.promise.kind))
        # An approach that runs with one of its variants is not refused.
        for name in self._ran:
            self.refusals.pop(name, None)
        self.tried += len(found)
        return found

    def _run(self, name: str, ranks: int, knobs: dict[str, Any]) -> RunSpec:
        # A few epochs are simulated and multiplied, whatever the number asked for.
        training = dataclasses.replace(self.question.run.training, epochs=SIMULATED_EPOCHS)
        return dataclasses.replace(
            self.question.run, approach=name, ranks=ranks, knobs=knobs, training=training
        )

    def _planned(self, name: str, knobs: dict[str, Any], machine: Machine) -> Planned | str:
        return self._planner.planned(self._run(name, machine.ranks, knobs), machine)

    def _choice(self, planned: Planned, machine: Machine, promise: str) -> Choice:
        caps, fact = (
            planned.run.memory.caps(),
            self.question.fact(planned.run, planned.steps_per_epoch),
        )
        epochs = float(self.question.epochs if fact is None else fact.epochs)
        return Choice(
            machine=machine,
            run=planned.run,
            promise=promise,
            steps_per_epoch=planned.steps_per_epoch,
            epochs=epochs,
            periods=planned.periods_per_epoch * epochs,
            fact=fact,
            memory=judge_worst(planned.needs, machine.cluster, machine.per_host, caps),
            usd_per_hour=machine.usd_per_hour(spot=self.question.spot),
        )

    def _again(self, choice: Choice) -> Planned:
        planned = self._planned(choice.run.approach, choice.run.knobs, choice.machine)
        assert isinstance(planned, Planned)
        return planned

    def estimate(self, choices: Iterable[Choice]) -> None:
        """Find the seconds of a period of choices that fit, without interval.

        Those of one plan are timed together. `lacks` says what a machine does not have.
        """
        groups: dict[int, list[Choice]] = defaultdict(list)
        for choice in choices:
            # What does not fit is not timed.
            if choice.out_of_memory <= P_OUT_OF_MEMORY:
                groups[id(self._again(choice))].append(choice)
        for group in groups.values():
            planned = self._again(group[0])
            times = estimate_together(
                planned.plan,
                [choice.machine.cluster for choice in group],
                ranks_per_host=group[0].machine.per_host,
                element_bytes=planned.run.training.element_bytes,
                known=planned.blocks,
            )
            for choice, seconds in zip(group, times, strict=True):
                if isinstance(seconds, Unsupported):
                    choice.lacks = f"{choice.approach}: {str(seconds).partition(':')[0]}"
                else:
                    choice.period_s = choice.low_s = choice.high_s = seconds

    def converging(self, choices: Sequence[Choice]) -> set[int]:
        """Choices that can be compared: where some converge by a published training, only those."""
        known = [choice for choice in choices if choice.fact is not None]
        if known:
            names = {choice.run.approach for choice in known}
            for choice in choices:
                if choice.run.approach not in names:
                    reason = "no published training says when it converges"
                    self.refusals.setdefault(choice.run.approach, reason)
        return {id(choice) for choice in known or choices}

    def predict(self, choice: Choice) -> None:
        """The whole prediction: interval, grade, phases, and memory by buffer."""
        if choice.prediction is not None:
            return
        planned, machine = self._again(choice), choice.machine
        found = predict_plan(
            planned.plan,
            machine.cluster,
            ranks_per_host=machine.per_host,
            periods=SIMULATED_EPOCHS,
            element_bytes=planned.run.training.element_bytes,
            caps=planned.run.memory.caps(),
            needs=planned.needs,
            ledger_blocks=LEDGER_BLOCKS,
        )
        choice.prediction = found
        choice.period_s, choice.low_s, choice.high_s = found.period_s, found.low_s, found.high_s
        choice.memory = least_room(found.memory)

    def order(self, choice: Choice) -> tuple[float, ...]:
        """Sort key: by devices, by time under a budget, else by price; unpriced machines last."""
        usd = float("inf") if choice.usd is None else choice.usd
        cost = (usd, choice.total_s)
        if self.question.budget_usd is not None and self.question.deadline_s is None:
            cost = (choice.total_s, usd)
        return (float(choice.machine.ranks), *cost) if self.question.smallest else cost

    def best(self, choices: Sequence[Choice]) -> tuple[Choice | None, str]:
        """The choice to take of several, best first, and why it misses the question if it does."""
        if not choices:
            return None, ""
        for choice in choices:
            if self.question.meets(choice):
                chosen = self.preferred([c for c in choices if c.machine == choice.machine])
                for one in (chosen, choice):
                    self.predict(one)
                    if self.question.meets(one):
                        return one, ""
        deadline = self.question.deadline_s
        if deadline is not None:
            # A deadline that nothing meets is answered by the closest miss.
            fastest = min(choices, key=lambda c: c.total_s)
            self.predict(fastest)
            return fastest, "no choice surely meets deadline and budget; this is the fastest"
        cheapest = min(choices, key=lambda c: float("inf") if c.usd is None else c.usd)
        self.predict(cheapest)
        return cheapest, "no choice surely meets the budget; this is the cheapest"

    def preferred(self, choices: Sequence[Choice]) -> Choice:
        """The best of the choices on one machine; of those tied with it, an exact one."""
        first = min(choices, key=self.order)
        tied = [c for c in choices if c.total_s <= (1 + TIED) * first.total_s and c.like(first)]
        names = [choice.promise != "exact" for choice in tied]
        simple = [not choice.reference for choice in tied]
        ranked = sorted(zip(names, simple, map(self.order, tied), range(len(tied)), strict=True))
        return tied[ranked[0][3]]

    def first(self, choices: Sequence[Choice]) -> Choice | None:
        """The best of some choices, best first, or one tied with it there; predicted in full."""
        if not choices:
            return None
        found = self.preferred([c for c in choices if c.machine == choices[0].machine])
        self.predict(found)
        return found

    def distinct(self, choices: Sequence[Choice]) -> list[Choice]:
        """Choices without those that take the same steps as another: one program on one device."""
        kept: dict[str, Choice] = {}
        # Reference approaches first, so that of equal programs the best-known name is kept.
        ordered = sorted(choices, key=lambda c: not c.reference)
        for number, choice in enumerate(ordered):
            key = str((choice.prediction and choice.prediction.notes.get("program")) or number)
            kept.setdefault(key, choice)
        return list(kept.values())

    def ruled_out(self, machine: Machine, tried: Sequence[Choice]) -> RuledOut:
        """Why nothing runs on a machine, and what would."""
        if not tried:
            names = [name for name in self.names if name in self.refusals]
            reason = self.refusals[names[0]] if names else "no approach can run on it"
            return RuledOut(machine=machine, reason=reason)
        lacking = next((choice.lacks for choice in tried if choice.lacks), "")
        if lacking:
            return RuledOut(machine=machine, reason=lacking)
        closest = min(tried, key=lambda choice: choice.missing_bytes)
        return RuledOut(
            machine=machine,
            reason="out of memory" if closest.missing_bytes > 0 else "too tight",
            closest=closest,
            way_out=self._way_out(machine),
        )

    def _way_out(self, machine: Machine) -> str:
        """More devices of the same kind on which something fits."""
        cluster = machine.cluster
        for more in _MORE:
            ranks = more * machine.ranks
            # No more hosts than the machine is described for.
            if -(-ranks // machine.per_host) > cluster.host.hosts_max:
                break
            larger = dataclasses.replace(machine, ranks=ranks)
            if any(choice.out_of_memory <= P_OUT_OF_MEMORY for choice in self.choices(larger)):
                return f"{larger.devices} ({larger.name})"
        return ""
