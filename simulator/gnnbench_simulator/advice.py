"""Advice before a purchase: which machine and approach, how long, how much, does it fit.

Every machine is tried with every approach and each of its variants. Memory of the training is
judged first; an evaluation can run elsewhere, and the answer says whether it fits as well. What
fits is timed without its interval, and the best of each machine are then predicted in full. Plans
and structures are shared between machines, because a plan knows nothing of constants.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gnnbench.approaches.names import APPROACHES
from gnnbench.errors import Unsupported
from gnnbench.machines import Machine, plain_name
from gnnbench.models.names import MODELS
from gnnbench.spec import RunSpec
from gnnbench.units import digits
from gnnbench_simulator.batch_reserve import name_quantiles, reserved_over_batches
from gnnbench_simulator.choices import Advice, Choice, Question, RuledOut
from gnnbench_simulator.memory import P_OUT_OF_MEMORY, judge_worst, least_room
from gnnbench_simulator.planner import SIMULATED_EPOCHS, Planned, Planner
from gnnbench_simulator.predict import estimate_together, predict_plan

TIED = 0.05
"""Choices on a machine within this share of its best are tied: an exact approach wins."""
FINALISTS = 16
"""Machines whose best choices are predicted in full."""
LEDGER_BLOCKS = 2_000
"""Blocks of equal iterations in a row from which the time of each step is known."""
_REASONS = 2
"""Reasons that are named where no approach can run on a machine."""
FEW_MACHINES = 8
"""Machines up to which buffers are chosen for a host's memory that does not hold a whole graph."""
_MORE = (2, 4, 8)
"""Multiples of the devices that are tried where nothing fits."""


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
    # A buffer is chosen for each size of host, which takes seconds for a graph of many batches.
    chosen = len(machines) <= FEW_MACHINES or question.run.dataset.kind == "triples"
    search = _Search(question, data, names, cache, sizes_buffers=chosen)
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
        self,
        question: Question,
        data: Any,
        names: Sequence[str],
        cache: Path | None,
        *,
        sizes_buffers: bool,
    ) -> None:
        self.question, self.names = question, names
        self.refusals: dict[str, str] = {}
        self.tried = 0
        self._sizes_buffers = sizes_buffers
        self._refused: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        self._ran: set[str] = set()
        self._planner = Planner(data, cache)

    def choices(self, machine: Machine) -> list[Choice]:
        """Every approach and variant that can run on a machine, its memory judged."""
        found = []
        for name in self.names:
            card = APPROACHES.get(name)
            plain = self._run(name, machine.ranks, {})
            runs = [replace(plain, knobs=knobs) for knobs in card.variants(plain)]
            own = self._judged(runs, machine)
            if (
                self._sizes_buffers
                and own
                and all(choice.out_of_memory > P_OUT_OF_MEMORY for choice in own)
            ):
                host = machine.cluster.host.memory_bytes.value / machine.per_host
                capped = replace(plain, memory=replace(plain.memory, host=int(host)))
                sized = [replace(capped, knobs=k) for k in card.variants_for_cap(capped)]
                own += self._judged(sized, machine)
            found += own
        # An approach that runs with one of its variants is not refused.
        for name in self._ran:
            self.refusals.pop(name, None)
        self.tried += len(found)
        return found

    def _judged(self, runs: Iterable[RunSpec], machine: Machine) -> list[Choice]:
        """The runs that can be planned on a machine, their memory judged."""
        found = []
        for run in runs:
            planned = self._planner.planned(run, machine)
            if isinstance(planned, str):
                self.refusals.setdefault(run.approach, planned)
                self._refused[_key(machine)].setdefault(run.approach, planned)
                continue
            self._ran.add(run.approach)
            promise = APPROACHES.get(run.approach).promise.kind
            found.append(self._choice(planned, machine, promise))
        return found

    def _run(self, name: str, ranks: int, knobs: dict[str, Any]) -> RunSpec:
        # A few epochs are simulated and multiplied, whatever the number asked for.
        training = replace(self.question.run.training, epochs=SIMULATED_EPOCHS)
        return replace(
            self.question.run, approach=name, ranks=ranks, knobs=knobs, training=training
        )

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
            sized=_sized(planned),
            steps_per_epoch=planned.steps_per_epoch,
            epochs=epochs,
            periods=planned.periods_per_epoch * epochs,
            fact=fact,
            memory=judge_worst(planned.needs, machine.cluster, machine.per_host, caps),
            usd_per_hour=machine.usd_per_hour(spot=self.question.spot),
        )

    def _again(self, choice: Choice) -> Planned:
        planned = self._planner.planned(choice.run, choice.machine)
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
                    choice.lacks = _lacking(choice, str(seconds))
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
            needs=planned.needs_of_all(),
            ledger_blocks=LEDGER_BLOCKS,
            slowest_only=True,
            evaluates=False,
        )
        worst = found.memory[least_room(found.memory)["rank"]]
        if machine.cluster.device.kind != "cpu" and planned.run.batch.size:
            # Batches of the mean size decide what fits; this adds what other batches reserve.
            seeds = max(planned.run.batch.size // planned.run.ranks, 1)
            over_runs = reserved_over_batches(planned.plan, worst["rank"], seeds=seeds)
            name_quantiles(worst, over_runs)
        choice.prediction = found
        choice.period_s, choice.low_s, choice.high_s = found.period_s, found.low_s, found.high_s
        choice.memory = dict(worst)

    def order(self, choice: Choice) -> tuple[float, ...]:
        """Sort key: by devices, by time under a budget, else by price; unpriced machines last.

        A stream is trained on for ever: its price is that of an hour.
        """
        usd = float("inf") if choice.usd is None else choice.usd
        cost = (usd, choice.total_s)
        if self.question.budget_usd is not None and self.question.deadline_s is None:
            cost = (choice.total_s, usd)
        if self.question.events_per_s is not None:
            rent = choice.usd_per_hour
            cost = (float("inf") if rent is None else rent, choice.total_s)
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
        rate = self.question.events_per_s
        if rate is not None:
            fastest = min(choices, key=lambda c: c.total_s)
            self.predict(fastest)
            return (
                fastest,
                f"no choice surely learns from {digits(rate)} events per second; the fastest",
            )
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
            # Approaches that run on other machines are refused here for a reason of this machine.
            refused = self._refused[_key(machine)]
            unlike = {text.removeprefix(f"{name} "): text for name, text in refused.items()}
            first = "; ".join(list(unlike.values())[:_REASONS])
            more = f"; and {len(unlike) - _REASONS} more" if len(unlike) > _REASONS else ""
            return RuledOut(machine=machine, reason=f"{first}{more}" or "no approach can run on it")
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
            larger = replace(machine, ranks=ranks)
            if any(choice.out_of_memory <= P_OUT_OF_MEMORY for choice in self.choices(larger)):
                return f"{larger.devices} ({larger.name})"
        return ""


def _sized(planned: Planned) -> str:
    """How much of a table on the disk is in memory, where its sizes were chosen for a cap."""
    notes = planned.plan.notes
    chosen = planned.run.memory.host and notes.get("partitions") and "buffer" in notes
    return f"buffer {notes['buffer']}/{notes['partitions']}" if chosen else ""


def _lacking(choice: Choice, refusal: str) -> str:
    """What the machine lacks for an approach, and how to add it to a machine of the catalogue."""
    name = plain_name(choice.machine.cluster)
    if "[storage]" in refusal:
        return (
            f"{choice.approach} reads the disk, which is not described: add [storage] to "
            f"`gnnbench info {name} --toml`"
        )
    return f"{choice.approach}: {refusal.partition(':')[0]}"


def _key(machine: Machine) -> tuple[str, str]:
    """What tells a machine from others: a cluster's name includes the constants changed in it."""
    return machine.cluster.name, machine.name
