"""How an answer of `gnnbench advise` is written: lines of 80 columns, and a JSON document."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gnnbench.units import digits, duration, durations

if TYPE_CHECKING:
    from gnnbench_simulator.advice import Advice, Choice, RuledOut
    from gnnbench_simulator.explanation import Measurement

_GIB = 2**30
_COLUMNS = 80
_RULED_OUT = 4


def lines(found: Advice, *, top: int, explain: bool) -> Iterator[str]:
    """The answer first, then the ranking, what was ruled out, and what would change it."""
    best = found.best
    if best is None:
        yield from _wrapped(_nothing(found))
    else:
        yield from _wrapped(_answer(found, best))
        for line in _alternatives(found, best):
            yield from _wrapped(line)
        yield ""
        yield f"Machines, each with its best approach ({_order(found)}):"
        yield from table([_machine(c, found) for c in found.ranked[:top]])
        if len(found.ranked) > top:
            yield f"and {len(found.ranked) - top} more that fit: --top {len(found.ranked)}"
        yield ""
        yield f"Approaches on {best.machine.name} ({_device(best)}):"
        yield from table([_approach(c, found) for c in found.approaches])
    yield from _ruled_out(found)
    yield from _change(found)
    if best is not None:
        yield ""
        yield from _wrapped(_assumed(found, best))
        if explain:
            yield from _explained(best)


# -- the answer ----------------------------------------------------------------------------------


def _answer(found: Advice, best: Choice) -> str:
    question = found.question
    missed = f" ({found.missed})" if found.missed else ""
    time = f"{duration(best.total_s)} ({_interval(best, best.periods)})"
    return (
        f"{best.machine.name} ({_device(best)}) with {best.approach}{missed}: "
        f"{question.epochs} epochs in {time} for {_usd(best)}; {_room(best)}; "
        f"evidence: {_evidence(best)}."
    )


def _evidence(choice: Choice) -> str:
    prediction = choice.prediction
    assert prediction is not None
    sizes = "sizes counted" if prediction.counted else "sizes estimated from a profile"
    return f"{prediction.grade} constants, {sizes}"


def _nothing(found: Advice) -> str:
    tried = [out for out in found.ruled_out if out.closest is not None]
    if not tried:
        reasons = "; ".join(dict.fromkeys(out.reason for out in found.ruled_out))
        return f"No approach can do this: {reasons}."
    closest = min(tried, key=lambda out: out.closest.missing_bytes if out.closest else 0)
    way_out = closest.way_out or next((out.way_out for out in tried if out.way_out), "")
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
    if other is not None:
        yield (
            f"Mind: an epoch of {best.run.approach} is {_steps(best)} and one of "
            f"{other.run.approach} {_steps(other)}, which are not equally good. The best of the "
            f"latter is {_short(other)}."
        )


def _short(choice: Choice) -> str:
    time, usd = duration(choice.total_s), _usd(choice)
    return f"{choice.approach} on {choice.machine.name}: {time} for {usd}"


def _steps(choice: Choice) -> str:
    steps = choice.steps_per_epoch
    return f"{_count(steps)} optimiser step{'' if steps == 1 else 's'}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else digits(value)


_PROMISES = {
    "unbiased": "an unbiased estimate of full-graph training",
    "stale": "full-graph training on stale values",
    "own": "another training than full-graph",
}


# -- tables --------------------------------------------------------------------------------------


def table(rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Lines of a table; the first column is aligned to the left, numbers to the right."""
    if not rows:
        return
    heads = list(rows[0])
    cells = [heads, *([row[head] for head in heads] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(heads))]
    left = [not any(ch.isdigit() for ch in rows[0][head][:1]) for head in heads]
    left[0] = True
    for line in cells:
        words = [
            word.ljust(width) if is_left else word.rjust(width)
            for word, width, is_left in zip(line, widths, left, strict=True)
        ]
        yield "  ".join(words).rstrip()


def _machine(choice: Choice, found: Advice) -> dict[str, str]:
    row = {
        "machine": choice.machine.name,
        "devices": _device(choice),
        "approach": choice.approach,
        "total": duration(choice.total_s),
        "USD": _money(choice.usd),
        "free": _free(choice),
    }
    if found.question.limited:
        row["limits"] = "met" if found.question.meets(choice) else "missed"
    return row


def _approach(choice: Choice, found: Advice) -> dict[str, str]:
    return {
        "approach": choice.approach,
        "promise": choice.promise,
        "steps/epoch": _count(choice.steps_per_epoch),
        "epoch": duration(choice.total_s / found.question.epochs),
        "90 % interval": _interval(choice, choice.periods / found.question.epochs),
        "USD": _money(choice.usd),
        "free": _free(choice),
    }


def _order(found: Advice) -> str:
    question = found.question
    by = "cheapest" if any(c.usd is not None for c in found.ranked) else "fastest"
    if question.budget_usd is not None and question.deadline_s is None:
        by = "fastest"
    return f"fewest devices, then {by} first" if question.smallest else f"{by} first"


# -- what was ruled out, and what would change it ------------------------------------------------


def _ruled_out(found: Advice) -> Iterator[str]:
    outs = sorted(
        (out for out in found.ruled_out if out.closest is not None),
        key=lambda out: out.closest.missing_bytes if out.closest else 0,
    )
    texts = []
    for out in outs:
        way_out = f"; fits: {out.way_out}" if out.way_out else ""
        texts.append(f"{_closest(out)}{way_out}")
    texts += [f"{out.machine.name}: {out.reason}" for out in found.ruled_out if out.closest is None]
    if found.unfit and found.best is not None:
        lacks = ", ".join(f"{c.approach} by {_gib(c.missing_bytes)}" for c in found.unfit)
        texts.insert(0, f"{found.best.machine.name}: out of memory with {lacks}")
    if found.best is not None:
        texts += [
            reason if reason.startswith(name) else f"{name}: {reason}"
            for name, reason in found.refusals.items()
        ]
    if texts:
        yield ""
        yield "Ruled out:"
    for text in texts[: _RULED_OUT + 1]:
        yield from textwrap.wrap(f"- {text}", _COLUMNS, subsequent_indent="  ")
    if len(texts) > _RULED_OUT + 1:
        yield f"- and {len(texts) - _RULED_OUT - 1} more, see --json"


def _closest(out: RuledOut) -> str:
    choice = out.closest
    assert choice is not None
    place = f"{out.machine.name} ({_device(choice)})"
    needs = (
        f"{choice.approach} needs {_gib(choice.memory['judged_bytes'])} of "
        f"{_gib(choice.memory['limit_bytes'])} {choice.memory['space']} per rank"
    )
    if choice.missing_bytes <= 0:
        return f"{place}: {needs}: P(out of memory) {_percent(choice.out_of_memory)}"
    return f"{place}: {needs}: {_gib(choice.missing_bytes)} too much"


def _change(found: Advice) -> Iterator[str]:
    from gnnbench_simulator.explanation import decisive

    measurement = decisive(found)
    if measurement is not None:
        yield ""
        yield from _wrapped(_measure(measurement))


def _measure(found: Measurement) -> str:
    choice = found.choice
    device = re.sub(r"^\d+ ", "", _device(choice))
    return (
        f"Measure first: {found.op} on {device} (`gnnbench calibrate --out FILE` there, then "
        f"--machines FILE). It is {_percent(found.share)} of an epoch on {choice.machine.name}, "
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
        f"{_percent(abs(found.turn - 1))} {noun}"
    )


_GRADES = {
    "datasheet": "its datasheet only",
    "transferred": "measurements of another device",
    "measured elsewhere": "measurements of others on this device",
    "measured": "a calibration",
}


def _assumed(found: Advice, best: Choice) -> str:
    prediction = best.prediction
    assert prediction is not None
    data = found.question.run.dataset
    facts = ", ".join(f"{key} = {value:,}" for key, value in data.override.items())
    price = best.machine.cluster.price
    rent = "no price is known"
    if price is not None:
        rate = price.spot_usd_per_hour if found.question.spot else price.usd_per_hour
        if rate is not None:
            date = "" if price.date == "unknown" else f", {price.date}"
            rent = f"rent {digits(rate.value)} USD per host and hour ({rate.source}{date})"
    return (
        f"Assumed: {data.name}{f' with {facts}' if facts else ''}; {prediction.basis}; {rent}; "
        "whole hosts are paid by the second; loading, partitioning and evaluation are left out."
    )


# -- explanation ---------------------------------------------------------------------------------


def _explained(best: Choice) -> Iterator[str]:
    from gnnbench_simulator.explanation import explanation

    found = explanation(best)
    yield ""
    yield f"Steps of the slowest rank on {best.machine.name}, waiting included:"
    yield from table(
        [
            {
                "step": step.name,
                "operation": step.op,
                "time": duration(step.seconds),
                "share": _percent(step.share),
                "evidence": step.grade or "-",
            }
            for step in found["steps"]
        ]
    )
    if found["other_steps"]:
        yield f"and {found['other_steps']} more steps: {duration(found['other_s'])}"
    yield ""
    yield "Constants behind them:"
    for basis in found["constants"]:
        text = f"- {basis.name} = {_quantity(basis.value)} {basis.unit}".rstrip()
        text = f"{text} ({basis.status}: {basis.source})"
        yield from textwrap.wrap(text, _COLUMNS, subsequent_indent="  ")
    memory = found["memory"]
    for space, parts in memory["categories"].items():
        held = memory["spaces"][space]
        if not parts:
            continue
        yield ""
        yield (
            f"{space.capitalize()} of rank {memory['rank']}: {_gib(held['needed_bytes'])} of "
            f"{_gib(held['limit_bytes'])}, P(out of memory) {_percent(held['p_out_of_memory'])}"
        )
        yield from table([{"category": name, "size": _gib(size)} for name, size in parts.items()])
        largest = list(memory["buffers"][space].items())[:8]
        text = "largest buffers: " + ", ".join(f"{name} {_gib(size)}" for name, size in largest)
        yield from _wrapped(text)


# -- words and numbers ---------------------------------------------------------------------------


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _COLUMNS, break_long_words=False, break_on_hyphens=False)


def _device(choice: Choice) -> str:
    """Such as "8 A100-80GB": the form factor is left out."""
    return re.sub(r"-(SXM|PCIe)\d*", "", choice.machine.devices)


def _interval(choice: Choice, periods: float) -> str:
    """The interval of so many periods; none of a choice that was not predicted in full."""
    if choice.prediction is None:
        return "-"
    return durations(choice.low_s * periods, choice.high_s * periods)


def _room(choice: Choice) -> str:
    memory = choice.memory
    free = memory["limit_bytes"] - memory["judged_bytes"]
    return (
        f"{_gib(free)} of {_gib(memory['limit_bytes'])} {memory['space']} stay free per rank, "
        f"P(out of memory) {_percent(choice.out_of_memory)}"
    )


def _free(choice: Choice) -> str:
    memory = choice.memory
    return _percent(1 - memory["judged_bytes"] / memory["limit_bytes"])


def _usd(choice: Choice) -> str:
    return "an unknown price" if choice.usd is None else f"{_money(choice.usd)} USD"


def _money(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:,.2f}" if 0.1 <= value < 100 else digits(value, 3 if value >= 100 else 2)


def _percent(share: float) -> str:
    if 0 <= share < 0.001:
        return "<0.1 %"
    return f"{digits(100 * share, 2)} %"


def _gib(size: float) -> str:
    gib = abs(size) / _GIB
    return f"{digits(gib)} GiB" if gib >= 0.1 else f"{digits(gib * 1024)} MiB"


def _quantity(value: float) -> str:
    return digits(value) if 0.01 <= value < 1e4 else f"{value:.3g}"


# -- JSON ----------------------------------------------------------------------------------------


def document(found: Advice, *, explain: bool) -> dict[str, Any]:
    """The answer as JSON: choices in order, what was ruled out, and the decisive measurement."""
    from gnnbench_simulator.explanation import decisive, explanation

    measurement = decisive(found)
    shown: dict[str, Any] = {
        "schema": 1,
        "answer": None if found.best is None else _answer(found, found.best),
        "best": None if found.best is None else _choice(found.best),
        "missed": found.missed,
        "ranked": [_choice(choice) for choice in found.ranked],
        "approaches": [_choice(choice) for choice in found.approaches],
        "ruled_out": [
            {
                "machine": out.machine.name,
                "reason": out.reason,
                "closest": None if out.closest is None else _choice(out.closest),
                "way_out": out.way_out,
            }
            for out in found.ruled_out
        ],
        "refusals": found.refusals,
        "measure": None
        if measurement is None
        else {
            "machine": measurement.choice.machine.name,
            "op": measurement.op,
            "grade": measurement.grade,
            "share": measurement.share,
            "factor_low": measurement.low,
            "factor_high": measurement.high,
            "turn": measurement.turn,
        },
        "tried": found.tried,
    }
    if explain and found.best is not None:
        shown["explanation"] = explanation(found.best)
    return shown


def _choice(choice: Choice) -> dict[str, Any]:
    return {
        "machine": choice.machine.name,
        "cluster": choice.machine.cluster.name,
        "device": choice.machine.cluster.device.name,
        "ranks": choice.machine.ranks,
        "ranks_per_host": choice.machine.per_host,
        "hosts": choice.machine.hosts,
        "approach": choice.run.approach,
        "knobs": choice.run.knobs,
        "promise": choice.promise,
        "optimizer_steps_per_epoch": choice.steps_per_epoch,
        "period_s": choice.period_s,
        "total_s": choice.total_s,
        "low_s": choice.low_s * choice.periods,
        "high_s": choice.high_s * choice.periods,
        "usd_per_hour": choice.usd_per_hour,
        "usd": choice.usd,
        "grade": "" if choice.prediction is None else choice.prediction.grade,
        "counted": None if choice.prediction is None else choice.prediction.counted,
        "memory": choice.memory,
    }
