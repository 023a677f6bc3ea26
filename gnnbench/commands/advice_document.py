"""An answer of `gnnbench advise` as a JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench.commands.advice import answer

if TYPE_CHECKING:
    from gnnbench_simulator.choices import Advice, Choice


def document(found: Advice, *, explain: bool) -> dict[str, Any]:
    """The answer as JSON: choices in order, what was ruled out, and the decisive measurement."""
    from gnnbench_simulator.explanation import decisive, explanation

    measurement = decisive(found)
    shown: dict[str, Any] = {
        "schema": 1,
        "answer": None if found.best is None else answer(found, found.best),
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
        "epochs": choice.epochs,
        "converges": choice.fact,
        "period_s": choice.period_s,
        "total_s": choice.total_s,
        "low_s": choice.low_s * choice.periods,
        "high_s": choice.high_s * choice.periods,
        "usd_per_hour": choice.usd_per_hour,
        "usd": choice.usd,
        "energy": choice.energy,
        "grade": "" if choice.prediction is None else choice.prediction.grade,
        "counted": None if choice.prediction is None else choice.prediction.counted,
        "memory": choice.memory,
    }
