"""How an answer of `gnnbench advise` is written: lines of 80 columns, and a JSON document."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from gnnbench.commands.advice_explained import explained
from gnnbench.commands.fits import needed_over_runs
from gnnbench.commands.wording import (
    COLUMNS,
    count,
    device_name,
    gib,
    gib_of_runs,
    kwh,
    money,
    percent,
    table,
    wrapped,
)
from gnnbench.units import digits, duration, durations

if TYPE_CHECKING:
    from gnnbench.cluster import Constant, Price
    from gnnbench.machines import Machine
    from gnnbench_simulator.choices import Advice, Choice, Question, RuledOut
    from gnnbench_simulator.explanation import Measurement

_RULED_OUT = 4
_SPARE = ("free", "promise")
"""Columns that are left out, in this order, where a table has more than 80 columns of text."""


def lines(found: Advice, *, top: int, explain: bool) -> Iterator[str]:
    """The answer first, then the ranking, what was ruled out, and what would change it."""
    best = found.best
    if best is None:
        yield from wrapped(_nothing(found))
    else:
        yield from wrapped(answer(found, best))
        # Of a stream without an end, neither a total nor its energy is asked for.
        energy = _energy(best) if found.question.events_per_s is None else ""
        for line in (*_unconverged(found, best), *_alternatives(found, best), energy):
            yield from wrapped(line)
        yield ""
        shown = found.ranked[:top]
        met = found.question.limited and all(map(found.question.meets, shown))
        limits = "; limits met" if met else ""
        yield from wrapped(f"Machines, each with its best approach ({_order(found)}{limits}):")
        yield from table([_machine(c, found, met=met) for c in shown], spare=_SPARE)
        if len(found.ranked) > top:
            yield f"and {len(found.ranked) - top} more that fit: --top {len(found.ranked)}"
        yield ""
        yield f"Approaches on {best.machine.name} ({_device(best)}), with steps per epoch:"
        yield from table([_approach(c, found) for c in found.approaches], spare=_SPARE)
    yield from _ruled_out(found)
    yield from _change(found)
    if best is not None:
        yield ""
        yield from wrapped(_assumed(found, best))
        if explain:
            yield from explained(best)


# -- the answer ----------------------------------------------------------------------------------


def answer(found: Advice, best: Choice) -> str:
    """The recommendation in a sentence."""
    question = found.question
    missed = f" ({found.missed})" if found.missed else ""
    head = f"{best.machine.name} ({_device(best)}) with {best.approach}{missed}"
    tail = f"{_room(best)}; evidence: {_evidence(best)}."
    if question.events_per_s is not None:
        return f"{head}{_keeps_up(best, question, question.events_per_s)}; {tail}"
    time = f"{duration(best.total_s)} ({_interval(best, best.periods)})"
    return (
        f"{head}: {_epochs(best, question)} in {time} for {_usd(best)}; an "
        f"epoch is {duration(best.total_s / best.epochs)} and {_steps(best)}"
        f"{_rate(best, question)}; {tail}"
    )


def _keeps_up(best: Choice, question: Question, asked: float) -> str:
    """Whether training keeps up with a stream, how fast it learns, and the rent meanwhile."""
    kept = f" keeps up with {digits(asked)} events per second" if question.meets(best) else ""
    rate = question.rate(best, best.period_s)
    rent = best.usd_per_hour
    price = "an unknown price" if rent is None else f"{money(rent)} USD"
    return (
        f"{kept}: it learns from {_rate(best, question).removeprefix(', ')}, "
        f"{digits(rate / asked, 2)} times the rate asked for, at {price} per hour"
    )


def _rate(choice: Choice, question: Question) -> str:
    """Events of a stream that are learnt from in a second, with the interval; "" of others."""
    if not question.events:
        return ""
    ends = " … ".join(
        digits(question.rate(choice, end), 2) for end in (choice.high_s, choice.low_s)
    )
    return f", {digits(question.rate(choice, choice.period_s))} ({ends}) events per second"


def _epochs(choice: Choice, question: Question) -> str:
    """Such as "100 epochs" or "35 epochs to convergence", with their optimiser steps."""
    number = count(choice.epochs)
    if choice.fact is None:
        return f"{number} epochs"
    steps = count(choice.epochs * choice.steps_per_epoch)
    return f"{number} epochs ({steps} optimiser steps) to convergence"


def _energy(choice: Choice) -> str:
    """Energy of the devices, its range and where it comes from; "" where no power is known."""
    found = choice.energy
    if found is None:
        return ""
    low, high = kwh(found["low_j"]), kwh(found["high_j"])
    ends = f"{low} kWh at idle power … {high} kWh at board power"
    if found["grade"] == "datasheet":
        return (
            f"Energy of its devices: {kwh(found['joules'])} kWh, an order of magnitude ({ends}): "
            "no power reading of this device is known."
        )
    return (
        f"Energy of its devices: {kwh(found['joules'])} kWh ({ends}), {found['grade']} power, "
        f"{found['basis']}."
    )


def _evidence(choice: Choice) -> str:
    prediction = choice.prediction
    assert prediction is not None
    sizes = "sizes counted" if prediction.counted else "sizes estimated from a profile"
    if prediction.counted and choice.run.dataset.profile:
        sizes = "sizes follow from the profile's counts"
    return f"{prediction.grade} constants, {sizes}"


def _nothing(found: Advice) -> str:
    tried = [out for out in found.ruled_out if out.closest is not None]
    if not tried:
        reasons = "; ".join(dict.fromkeys(out.reason for out in found.ruled_out))
        return f"No approach can do this: {reasons}."
    closest = min(tried, key=lambda out: out.closest.missing_bytes if out.closest else 0)
    way_out = closest.way_out or next((out.way_out for out in tried if out.way_out), "")
    way_out = device_name(way_out)
    remedy = f": try {way_out}" if way_out else ": ask for more devices, or fewer features"
    return f"Nothing fits; the closest is {_closest(closest)}{remedy}."


def _alternatives(found: Advice, best: Choice) -> Iterator[str]:
    """The best choice that trains exactly, and the best with other optimiser steps per epoch."""
    exact, other = found.exact, found.unlike
    if best.promise != "exact" and exact is not None:
        yield (
            f"{best.run.approach} is {_PROMISES[best.promise]}; the best exact choice is "
            f"{_short(exact)}."
        )
    facts = best.fact is not None and (other is None or other.fact is not None)
    if other is not None and not facts:
        again = f" The best of the latter is {_short(other)}."
        yield (
            f"Mind: an epoch of {best.run.approach} is {_steps(best)} and one of "
            f"{other.run.approach} {_steps(other)}, which are not equally good."
            f"{'' if other is exact and best.promise != 'exact' else again}"
        )


def _unconverged(found: Advice, best: Choice) -> Iterator[str]:
    """That no published training reaches what was asked for, so that the epochs are assumed."""
    if _to_accuracy(found) and best.fact is None:
        asked = found.question.accuracy
        aim = "when it converges" if asked is None else f"when it reaches an accuracy of {asked:g}"
        yield (
            f"Mind: no published training of {found.question.run.dataset.name} says {aim}: time "
            f"and price are those of {count(best.epochs)} epochs (--epochs)."
        )


def _short(choice: Choice) -> str:
    time, usd = duration(choice.total_s), _usd(choice)
    return f"{choice.approach} on {choice.machine.name}: {time} for {usd}"


def _steps(choice: Choice) -> str:
    steps = choice.steps_per_epoch
    return f"{count(steps)} optimiser step{'' if steps == 1 else 's'}"


_PROMISES = {
    "unbiased": "an unbiased estimate of full-graph training",
    "stale": "full-graph training on stale values",
    "own": "another training than full-graph",
}


# -- tables --------------------------------------------------------------------------------------


def _machine(choice: Choice, found: Advice, *, met: bool) -> dict[str, str]:
    question = found.question
    row = {
        "machine": choice.machine.name,
        "devices": _device(choice),
        "approach": choice.approach,
        **_speed(choice, question, {"total": duration(choice.total_s)}, ends=False),
        "free": _free(choice),
    }
    if question.limited and not met:
        row["limits"] = "met" if question.meets(choice) else "missed"
    return row


def _approach(choice: Choice, found: Advice) -> dict[str, str]:
    epoch = {
        "epoch": duration(choice.total_s / choice.epochs),
        "90 % interval": _interval(choice, choice.periods / choice.epochs),
    }
    return {
        "approach": choice.approach,
        "promise": choice.promise,
        "steps": count(choice.steps_per_epoch),
        **_speed(choice, found.question, epoch, ends=True),
        **({"epochs": count(choice.epochs)} if choice.fact is not None else {}),
        "free": _free(choice),
    }


def _speed(
    choice: Choice, question: Question, time: dict[str, str], *, ends: bool
) -> dict[str, str]:
    """Columns of time and price; of a stream that must be kept up with, those of a rate."""
    if question.events_per_s is None:
        return {**time, "USD": money(choice.usd)}
    low, high = (question.rate(choice, end) for end in (choice.high_s, choice.low_s))
    known = choice.prediction is not None
    interval = {"90 % interval": f"{digits(low)} … {digits(high)}" if known else "-"}
    return {
        "events/s": digits(question.rate(choice, choice.period_s)),
        **(interval if ends else {}),
        "USD/h": money(choice.usd_per_hour),
    }


def _to_accuracy(found: Advice) -> bool:
    """Whether the training asked for ends by what it reaches."""
    return found.question.converged or found.question.accuracy is not None


def _order(found: Advice) -> str:
    question = found.question
    by = "cheapest" if any(c.usd is not None for c in found.ranked) else "fastest"
    if question.events_per_s is not None:
        by = "lowest rent"
    elif question.budget_usd is not None and question.deadline_s is None:
        by = "fastest"
    return f"{'fewest devices, then ' if question.smallest else ''}{by} first"


# -- what was ruled out, and what would change it ------------------------------------------------


def _ruled_out(found: Advice) -> Iterator[str]:
    outs = sorted(
        (out for out in found.ruled_out if out.closest is not None),
        key=lambda out: out.closest.missing_bytes if out.closest else 0,
    )
    texts = []
    for out in outs:
        way_out = f"; fits: {device_name(out.way_out)}" if out.way_out else ""
        texts.append(f"{_closest(out)}{way_out}")
    alike: dict[str, list[str]] = {}
    for out in found.ruled_out:
        if out.closest is None:
            alike.setdefault(out.reason, []).append(out.machine.name)
    for reason, names in alike.items():
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        texts.append(f"{', '.join(names[:2])}{more}: {reason}")
    if found.unfit and found.best is not None:
        lacks = ", ".join(f"{c.approach} by {gib(c.missing_bytes)}" for c in found.unfit)
        texts.insert(0, f"{found.best.machine.name}: out of memory with {lacks}")
    if found.best is not None:
        texts += _refusals(found.refusals)
    if texts:
        yield ""
        yield "Ruled out:"
    for text in texts[: _RULED_OUT + 1]:
        yield from textwrap.wrap(
            f"- {text}", COLUMNS, subsequent_indent="  ", break_on_hyphens=False
        )
    if len(texts) > _RULED_OUT + 1:
        yield f"- and {len(texts) - _RULED_OUT - 1} more, see --json"


def _refusals(found: Mapping[str, str]) -> Iterator[str]:
    """Approaches that cannot run at all, those of one reason in one line."""
    alike: dict[str, list[str]] = {}
    for name, reason in found.items():
        alike.setdefault(reason.removeprefix(f"{name} "), []).append(name)
    for reason, names in alike.items():
        own = found[names[0]] != reason  # a sentence that begins with the approach
        colon = "" if own and len(names) == 1 else ": each" if own else ":"
        yield f"{', '.join(names)}{colon} {reason}"


def _closest(out: RuledOut) -> str:
    choice = out.closest
    assert choice is not None
    place = f"{out.machine.name} ({_device(choice)})"
    needs = (
        f"{choice.approach} needs {gib(choice.memory['judged_bytes'])} of "
        f"{gib(choice.memory['limit_bytes'])} {choice.memory['space']} per rank"
    )
    if choice.missing_bytes <= 0:
        return f"{place}: {needs}: P(out of memory) {percent(choice.out_of_memory)}"
    return f"{place}: {needs}: {gib(choice.missing_bytes)} too much"


def _change(found: Advice) -> Iterator[str]:
    from gnnbench_simulator.explanation import decisive

    measurement = decisive(found)
    if measurement is not None:
        yield ""
        yield from wrapped(_measure(measurement))


def _measure(found: Measurement) -> str:
    choice = found.choice
    device = re.sub(r"^\d+ ", "", _device(choice))
    return (
        f"Measure first: {found.op} on {device} (`gnnbench calibrate --out FILE` there, then "
        f"--machines FILE). It is {percent(found.share)} of an epoch on {choice.machine.name}, "
        f"known from {_GRADES.get(found.grade, found.grade)}; its 90 % range moves the total by "
        f"{100 * (found.low - 1):+.0f} … {100 * (found.high - 1):+.0f} %{_turn(found)}."
    )


def _turn(found: Measurement) -> str:
    if found.turn is None or found.against is None:
        return ""
    noun = "faster" if found.turn < 1 else "slower"
    if found.choice.usd is not None:
        noun = "cheaper" if found.turn < 1 else "dearer"
    enough = found.low <= found.turn <= found.high
    return (
        f", {'' if enough else 'not '}enough to change the order: {found.against.machine.name} is "
        f"{percent(abs(found.turn - 1))} {noun}"
    )


_GRADES = {
    "datasheet": "its datasheet only",
    "transferred": "measurements of another device",
    "measured elsewhere": "measurements of others on this device",
    "measured": "a calibration",
}


def _assumed(found: Advice, best: Choice) -> str:
    from gnnbench.approaches.whole_graph.blocks import COUNTED

    prediction = best.prediction
    assert prediction is not None
    data = found.question.run.dataset
    facts = ", ".join(f"{key} = {value:,}" for key, value in data.override.items())
    rent = "; ".join(_rents(best.machine, spot=found.question.spot)) or "no price is known"
    if best.sized:
        host = digits(best.run.memory.host / 1e9)
        facts += f"{', ' if facts else ''}partitions = 0 and [memory] host = {host} GB"
    basis = prediction.basis
    if basis == COUNTED and data.profile:
        basis = "every size follows from its counts"
    graph = f"{data.name} with {facts}" if facts else data.name
    return (
        f"Assumed: {_convergence(best)}{graph}; {basis}; {rent}; "
        "whole hosts are paid by the second; loading, partitioning and evaluation are left out."
    )


def _rents(machine: Machine, *, spot: bool) -> Iterator[str]:
    """The rate of each kind of host that is rented, with its source and date."""
    for kind in {machine.cluster.kind_of(host): None for host in range(machine.hosts)}:
        own = machine.cluster.kinds[kind]
        if own.price is None:
            continue
        rate = own.price.spot_usd_per_hour if spot else own.price.usd_per_hour
        if rate is None:
            continue
        of = f" of {own.name}" if machine.cluster.nodes else ""
        yield f"rent {digits(rate.value)} USD per host{of} and hour ({_dated(rate, own.price)})"


def _dated(rate: Constant, price: Price) -> str:
    """Source and date of a rate; where the source has none, that it has none."""
    if price.date != "unknown":
        return f"{rate.source}, {price.date}"
    told = any(word in rate.source for word in ("undated", "date unknown"))
    return rate.source if told else f"{rate.source}, date unknown"


def _convergence(best: Choice) -> str:
    """The published training from which the epochs are; "" where they were asked for."""
    fact = best.fact
    if fact is None:
        return ""
    return (
        f"converges as {fact.model} did on {fact.dataset}"
        f"{f' with batches of {fact.batch:,}' if fact.batch else ''} ({fact.source}); "
    )


def _device(choice: Choice) -> str:
    return device_name(choice.machine.devices)


def _interval(choice: Choice, periods: float) -> str:
    """The interval of so many periods; none of a choice that was not predicted in full."""
    if choice.prediction is None:
        return "-"
    return durations(choice.low_s * periods, choice.high_s * periods, of=choice.period_s * periods)


def _room(choice: Choice) -> str:
    memory = choice.memory
    free = memory["limit_bytes"] - memory["judged_bytes"]
    over_runs = needed_over_runs(memory)
    needs = ""
    if over_runs is not None:
        needs = f"a rank needs {gib_of_runs(*over_runs)} of its device, depending on its batches; "
    return (
        f"{needs}{gib(free)} of {gib(memory['limit_bytes'])} {memory['space']} stay free per rank, "
        f"P(out of memory) {percent(choice.out_of_memory)}{_lacking(memory)}"
    )


def _lacking(memory: Mapping[str, Any]) -> str:
    """What the evaluation lacks where the training fits; "" if it fits as well."""
    for space, needed in memory.get("evaluation_bytes", {}).items():
        limit = memory["spaces"][space]["limit_bytes"]
        if limit is not None and needed > limit:
            return (
                f"; evaluating the whole dataset would need {gib(needed)} of {space}: that does "
                "not fit here"
            )
    return ""


def _free(choice: Choice) -> str:
    memory = choice.memory
    return percent(1 - memory["judged_bytes"] / memory["limit_bytes"])


def _usd(choice: Choice) -> str:
    return "an unknown price" if choice.usd is None else f"{money(choice.usd)} USD"
