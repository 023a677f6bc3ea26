"""Labels of configurations, and what a record's spec says of dataset, task and metric.

Specs are read as plain tables, so that a record of an approach that is not installed can be shown.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from gnnbench.approaches.base import Approach
from gnnbench.approaches.names import APPROACHES
from gnnbench.metrics import TASKS
from gnnbench.spec import DEFAULT_TASKS, TrainingSpec

Spec = Mapping[str, Any]


def label_all(
    specs: Mapping[str, Spec], layouts: Mapping[str, int] | None = None
) -> dict[str, str]:
    """Return a label per key: the approach, and in brackets the settings that tell it from others.

    A setting is shown where two configurations of one approach, dataset, model and rank count
    differ by it. A setting that is off by default (0, false or empty) is not shown where it is off.
    Seeds are not shown: configurations that differ by the seed alone share a label.

    Args:
        specs: by any key.
        layouts: ranks per host by the same key, a further setting; 0 is unknown.
    """
    by_approach: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for key, spec in specs.items():
        by_approach[str(spec.get("approach", ""))][key] = _settings(spec) | {
            "ranks_per_host": str((layouts or {}).get(key) or "")
        }
    labels: dict[str, str] = {}
    for approach, settings_of in by_approach.items():
        off = _off_by_default(approach)
        varying = _varying(settings_of, specs, off)
        for key, settings in settings_of.items():
            shown = [
                f"{name}={settings[name]}"
                for name in varying
                if settings.get(name) and not (name in off and settings[name] in _OFF)
            ]
            labels[key] = f"{approach} [{', '.join(shown)}]" if shown else approach
    return labels


def _settings(spec: Spec) -> dict[str, str]:
    """Settings by name; those of other tables than training and knobs carry the table's name."""
    found: dict[str, Any] = {
        f"{table}.{name}": value
        for table in ("task", "batch", "memory")
        for name, value in (spec.get(table) or {}).items()
        if name != "name"
    }
    found["dataset.digest"] = digest_of(spec)[:8]
    found |= {**(spec.get("training") or {}), **knobs_of(spec)}
    found.pop("seed", None)
    return {name: _show(value) for name, value in found.items()}


def _off_by_default(approach: str) -> frozenset[str]:
    """The settings of an approach's runs whose default is off."""
    known = card(approach)
    knobs = {} if known is None else dataclasses.asdict(known.knobs_type())
    defaults = {**dataclasses.asdict(TrainingSpec()), **knobs}
    return frozenset(name for name, value in defaults.items() if _show(value) in _OFF)


def _varying(
    settings_of: Mapping[str, Mapping[str, str]],
    specs: Mapping[str, Spec],
    off: Collection[str] = (),
) -> list[str]:
    """Settings in which two configurations of one dataset, model and rank count differ."""
    places: dict[tuple[str, str, int], list[Mapping[str, str]]] = defaultdict(list)
    for key, settings in settings_of.items():
        spec = specs[key]
        place = spec_name(spec, "dataset"), spec_name(spec, "model"), int(spec.get("ranks", 1))
        places[place].append(settings)
    varying: dict[str, None] = {}
    for together in places.values():
        for name in sorted({name for settings in together for name in settings}):
            if len({settings.get(name) for settings in together}) > 1:
                varying[name] = None
    needed = list(varying)
    # Epochs that follow from a knob (equal work for every number of parts) tell nothing more. Of
    # settings that tell the same, those that are off by default make the shortest labels.
    for name in sorted(varying, key=lambda name: (name not in _LEAST_TELLING, name in off)):
        fewer = [other for other in needed if other != name]
        if fewer and all(
            _told_apart(together, fewer) == _told_apart(together, needed)
            for together in places.values()
        ):
            needed = fewer
    return needed


_LEAST_TELLING = frozenset({"epochs", "warmup_epochs", "evaluate_every", "timeout_s", "speedup"})
_OFF = frozenset({"0", "False", ""})


def _told_apart(together: list[Mapping[str, str]], names: list[str]) -> int:
    """How many kinds of settings there are by these names."""
    return len({tuple(settings.get(name) for name in names) for settings in together})


def natural(label: str) -> tuple[str | float, ...]:
    """A key that sorts labels by the numbers in them: speedup=400 before speedup=2000.

    A label comes before those with further settings.
    """
    parts = re.split(r"(\d+(?:\.\d+)?)", label.rstrip("]"))
    return tuple(float(part) if at % 2 else part for at, part in enumerate(parts))


def printable(text: str, limit: int = 40) -> str:
    """A label without control characters and of at most `limit` characters.

    A label that is too long loses the names of its settings first, then the end of the approach's
    name, then the ends of the values, which tell labels of one approach apart.
    """
    clean = "".join(c if c.isprintable() else "?" for c in text)
    if len(clean) <= limit:
        return clean
    name, bracket, settings = clean.rstrip("]").partition(" [")
    if bracket:
        values = [one.rpartition("=")[2] for one in settings.split(", ")]
        # Four characters stay of the name; values are cut, the longest first, before it goes.
        least = min(len(name), 4)
        values = _shortened(values, limit - least - 3)
        shown = ", ".join(values)
        spare = limit - len(shown) - 3
        if spare >= least:
            name = name if len(name) <= spare else f"{name[: spare - 1]}…"
            return f"{name} [{shown}]"
    return clean[: limit - 1] + "…"


def _shortened(values: list[str], limit: int) -> list[str]:
    """Values that take at most `limit` characters with a comma and a blank between them.

    None is cut to less than four characters, so that they may take more.
    """
    widths = [len(value) for value in values]
    while sum(widths) + 2 * (len(widths) - 1) > limit and max(widths) > 4:
        widths[widths.index(max(widths))] -= 1
    return [
        value if len(value) <= width else f"{value[: width - 1]}…"
        for value, width in zip(values, widths, strict=True)
    ]


def other_settings(label: str, left_out: Collection[str]) -> str:
    """The settings that a label shows, without those named, such as "prefetch=1"."""
    shown = label.partition(" [")[2].rpartition("]")[0]
    return ", ".join(
        one for one in shown.split(", ") if one and one.partition("=")[0] not in left_out
    )


def card(approach: str) -> Approach | None:
    """The approach's card, or None if no approach of this name is installed."""
    return APPROACHES.get(approach) if approach in APPROACHES.known else None


def knobs_of(spec: Spec) -> dict[str, Any]:
    """Every knob of a spec: those it sets, and the defaults of the approach's card."""
    known = card(str(spec.get("approach", "")))
    defaults = {} if known is None else dataclasses.asdict(known.knobs_type())
    return {**defaults, **(spec.get("knobs") or {})}


def spec_name(spec: Spec, kind: str) -> str:
    """The name of a spec's "dataset" or "model"."""
    table = spec.get(kind) or {}
    return str(table.get("name", "")) if isinstance(table, Mapping) else str(table)


def seed_of(spec: Spec) -> int:
    """The seed of a spec's training."""
    return int((spec.get("training") or {}).get("seed", 0))


def apart_from_seed(spec: Spec) -> str:
    """A text that is the same for specs that differ by seed, repeat or suite alone."""
    content = {key: value for key, value in spec.items() if key not in ("suite", "repeat")}
    content["training"] = {**(spec.get("training") or {}), "seed": 0}
    return json.dumps(content, sort_keys=True, default=str)


def digest_of(spec: Spec) -> str:
    """The digest of a spec's dataset; "" where the dataset was not opened."""
    return str((spec.get("dataset") or {}).get("digest", ""))


def apart_from_content(spec: Spec) -> str:
    """A text that is the same for specs that differ by repeat, suite or the dataset's content."""
    content = {key: value for key, value in spec.items() if key not in ("suite", "repeat")}
    dataset = spec.get("dataset") or {}
    # The kind is filled in with the digest, when the dataset is opened.
    content["dataset"] = {k: v for k, v in dataset.items() if k not in ("digest", "kind")}
    return json.dumps(content, sort_keys=True, default=str)


def task_of(spec: Spec) -> str:
    """The kind of task of a spec, "" where the kind of its dataset is not known."""
    asked = (spec.get("task") or {}).get("kind", "")
    return str(asked or DEFAULT_TASKS.get((spec.get("dataset") or {}).get("kind", ""), ""))


def primary_metric(spec: Spec) -> str:
    """The metric that a spec's runs are compared by, such as "accuracy"; "" if not known."""
    asked = (spec.get("task") or {}).get("metric", "")
    task = TASKS.get(task_of(spec))
    return str(asked or ("" if task is None else task.primary))


def _show(value: object) -> str:
    if isinstance(value, list | tuple):
        return "/".join(map(_show, value))
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
