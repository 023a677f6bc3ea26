"""How a sweep is written: lines of 80 columns, a JSON document, and a CSV table."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.commands.wording import (
    count,
    device_name,
    gib,
    kwh,
    money,
    table,
    wrapped,
)
from gnnbench.units import digits, duration

if TYPE_CHECKING:
    from gnnbench_simulator.sensitivity import Swing
    from gnnbench_simulator.survey import Survey
    from gnnbench_simulator.sweep import BreakEven, WhatIf

_CONSTANTS = 8


def lines(found: Survey, *, top: int) -> Iterator[str]:
    """The cheapest what-if, how many fit, the Pareto set, break-even rents and the tornado."""
    best = found.cheapest
    yield from wrapped(_nothing(found) if best is None else _answer(found, best))
    yield from wrapped(_counts(found))
    if best is None:
        return
    if len(found.by_workload) > 1:
        yield ""
        yield "Cheapest of each workload (their times are no alternatives):"
        yield from table([_best_of(one) for one in found.by_workload[:top]])
        yield from _more(len(found.by_workload), top)
    yield ""
    yield from wrapped(
        f"Pareto set over {', '.join(found.objectives)} of {found.grid.epochs} epochs, among "
        "what-ifs of one workload with equally many optimiser steps per epoch:"
    )
    yield from table([_row(one) for one in found.pareto[:top]])
    yield from _more(len(found.pareto), top)
    if found.ties:
        yield ""
        yield from wrapped(
            "Break-even: rent of a host at which the training costs as much as the cheapest:"
        )
        yield from table([_tie(tie) for tie in found.ties[:top]])
        yield from _more(len(found.ties), top)
    if found.swings:
        yield ""
        yield from wrapped(
            f"Sensitivity of the time of {best.run.approach} on {best.machine.name}; an operation "
            "moves by its 90 % error, a constant by a quarter:"
        )
        yield from table([_swing(swing) for swing in found.swings[:_CONSTANTS]])


def _answer(found: Survey, best: WhatIf) -> str:
    rent = "" if best.usd is None else f" for {money(best.usd)} USD"
    spent = ""
    if best.energy_j is not None:
        spent = f", {kwh(best.energy_j)} kWh ({best.energy_grade} power)"
    cheapest = "cheapest" if best.usd is not None else "fastest"
    memory = best.memory
    return (
        f"{best.machine.name} ({device_name(best.machine.devices)}) with {_approach(best)} is the "
        f"{cheapest} that fits: {found.grid.epochs} epochs in {duration(best.total_s)}{rent}"
        f"{spent}; optimiser steps per epoch: {count(best.steps_per_epoch)}; "
        f"{gib(memory['judged_bytes'])} of {gib(memory['limit_bytes'])} {memory['space']} per rank."
    )


def _nothing(found: Survey) -> str:
    near = [one for one in found.what_ifs if not one.reason]
    if not near:
        reasons = Counter(one.reason for one in found.what_ifs)
        return f"No what-if can run: {reasons.most_common(1)[0][0]}."
    best = min(near, key=lambda one: one.needed_bytes / one.memory["limit_bytes"])
    return (
        f"Nothing fits. The closest is {_approach(best)} on {best.machine.name}, which needs "
        f"{gib(best.needed_bytes)} of {gib(best.memory['limit_bytes'])} {best.memory['space']} per "
        "rank: try more devices, or fewer features (--set num_features=...)."
    )


def _counts(found: Survey) -> str:
    verdicts = Counter("cannot run" if o.reason else o.memory["verdict"] for o in found.what_ifs)
    words = ", ".join(f"{number:,} {_VERDICTS[word]}" for word, number in sorted(verdicts.items()))
    return f"{len(found.what_ifs):,} what-ifs: {words}."


_VERDICTS = {
    "cannot run": "cannot run",
    "does not fit": "do not fit",
    "fits": "fit",
    "tight": "may run out of memory",
}


def _approach(one: WhatIf) -> str:
    knobs = ", ".join(str(value) for value in one.run.knobs.values())
    return f"{one.run.approach} ({knobs})" if knobs else one.run.approach


def _workload(one: WhatIf) -> str:
    model, batch = one.run.model, one.run.batch
    fanouts = ",".join(map(str, batch.fanouts(model.layers)))
    precision = "" if one.run.training.precision == "float32" else " f64"
    return f"{model.kind} {model.layers}x{model.hidden} {batch.size}:{fanouts}{precision}"


def _row(one: WhatIf) -> dict[str, str]:
    return {
        "machine": one.machine.name,
        "approach": _approach(one)[:24],
        "steps": count(one.steps_per_epoch),
        "total": duration(one.total_s),
        "USD": money(one.usd),
        "GiB": digits(one.needed_bytes / 2**30, 2),
        "kWh": "?" if one.energy_j is None else kwh(one.energy_j),
    }


def _best_of(one: WhatIf) -> dict[str, str]:
    row = _row(one)
    shown = ("machine", "approach", "steps", "total", "USD")
    return {"workload": _workload(one), **{head: row[head] for head in shown}}


def _tie(tie: BreakEven) -> dict[str, str]:
    return {
        "machine": tie.one.machine.name,
        "approach": _approach(tie.one)[:24],
        "total": duration(tie.one.total_s),
        "USD/h now": money(tie.now),
        "break-even": money(tie.usd_per_host_hour),
    }


def _swing(swing: Swing) -> dict[str, str]:
    return {
        "cause": swing.name,
        "range": f"×/÷ {digits(swing.factor, 3)}",
        "time": f"{100 * (swing.low - 1):+.1f} … {100 * (swing.high - 1):+.1f} %",
        "evidence": swing.grade,
    }


def _more(number: int, top: int) -> Iterator[str]:
    if number > top:
        yield f"and {number - top} more: --top {number}"


# -- files ---------------------------------------------------------------------------------------


def rows(found: Survey) -> list[dict[str, Any]]:
    """Every what-if as a flat row."""
    best = {id(one) for one in found.pareto}
    return [{**_flat(one), "pareto": id(one) in best} for one in found.what_ifs]


def _flat(one: WhatIf) -> dict[str, Any]:
    run, machine, memory = one.run, one.machine, one.memory
    ran = not one.reason
    return {
        "dataset": run.dataset.name,
        "model": run.model.kind,
        "hidden": run.model.hidden,
        "layers": run.model.layers,
        "batch": run.batch.size,
        "fanouts": " ".join(map(str, run.batch.fanouts(run.model.layers))),
        "precision": run.training.precision,
        "approach": run.approach,
        "knobs": one.setting,
        "machine": machine.name,
        "cluster": machine.cluster.name,
        "device": machine.cluster.device.name,
        "ranks": machine.ranks,
        "ranks_per_host": machine.per_host,
        "optimizer_steps_per_epoch": one.steps_per_epoch if ran else None,
        "period_s": one.period_s if ran else None,
        "total_s": one.total_s if ran else None,
        "usd": one.usd,
        "energy_j": one.energy_j,
        "energy_grade": one.energy_grade,
        "memory_space": memory.get("space", ""),
        "needed_bytes": memory.get("judged_bytes"),
        "limit_bytes": memory.get("limit_bytes"),
        "p_out_of_memory": _chance(memory),
        "verdict": memory.get("verdict", "cannot run") if ran else "cannot run",
        "reason": one.reason,
    }


def _chance(memory: Mapping[str, Any]) -> float | None:
    chances = [float(space["p_out_of_memory"]) for space in memory.get("spaces", {}).values()]
    return max(chances, default=None)


def write_csv(found: Survey, path: Path) -> None:
    """Write all what-ifs, whole or not at all."""
    from gnnbench.atomic import write_text
    from gnnbench.spreadsheet import guarded

    text = io.StringIO()
    every = rows(found)
    writer = csv.DictWriter(text, list(every[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: guarded(value) for key, value in row.items()} for row in every)
    write_text(path, text.getvalue())


def document(found: Survey) -> dict[str, Any]:
    """All what-ifs, and what the sweep shows, as JSON."""
    return {
        "schema": 1,
        "epochs": found.grid.epochs,
        "objectives": found.objectives,
        "cheapest": None if found.cheapest is None else _flat(found.cheapest),
        "by_workload": [_flat(one) for one in found.by_workload],
        "pareto": [_flat(one) for one in found.pareto],
        "break_even": [
            {
                **_flat(tie.one),
                "usd_per_host_hour_now": tie.now,
                "usd_per_host_hour_break_even": tie.usd_per_host_hour,
            }
            for tie in found.ties
        ],
        "tornado": [_swing_row(swing) for swing in found.swings],
        "what_ifs": rows(found),
    }


def _swing_row(swing: Swing) -> dict[str, Any]:
    return {
        "name": swing.name,
        "what": swing.what,
        "grade": swing.grade,
        "factor": swing.factor,
        "time_low": swing.low,
        "time_high": swing.high,
        "log_width": swing.width if math.isfinite(swing.width) else None,
    }
