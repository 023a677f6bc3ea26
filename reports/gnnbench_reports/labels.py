"""Name configurations so that no two of one graph, model and rank count look alike."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any


def label_all(specs: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name each configuration's approach, with the settings that vary under that name, if any.

    Seeds are no setting: configurations that differ by the seed alone have one label.
    """
    by_approach: dict[str, dict[str, dict[str, str]]] = defaultdict(dict)
    for config_id, spec in specs.items():
        settings = {**(spec.get("training") or {}), **(spec.get("knobs") or {})}
        by_approach[str(spec.get("approach", ""))][config_id] = {
            key: _show(value) for key, value in settings.items() if key != "seed"
        }
    labels: dict[str, str] = {}
    for approach, settings_of in by_approach.items():
        varying = _varying(approach, settings_of, specs)
        for config_id, settings in settings_of.items():
            told = [f"{key}={settings[key]}" for key in varying if key in settings]
            labels[config_id] = f"{approach} [{', '.join(told)}]" if told else approach
    return labels


def _varying(
    approach: str,
    settings_of: Mapping[str, Mapping[str, str]],
    specs: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Settings in which two configurations of one graph, model and rank count differ."""
    places: dict[tuple[str, str, int], list[Mapping[str, str]]] = defaultdict(list)
    for config_id, settings in settings_of.items():
        spec = specs[config_id]
        place = spec_name(spec, "graph"), spec_name(spec, "model"), int(spec.get("ranks", 1))
        places[place].append(settings)
    varying: dict[str, None] = {}
    for together in places.values():
        for key in sorted({key for settings in together for key in settings}):
            if len({settings.get(key) for settings in together}) > 1:
                varying[key] = None
    return list(varying)


def spec_name(spec: Mapping[str, Any], kind: str) -> str:
    """Return the name of a spec's "graph" or "model"."""
    table = spec.get(kind) or {}
    return str(table.get("name", "")) if isinstance(table, Mapping) else str(table)


def seed_of(spec: Mapping[str, Any]) -> int:
    """Return the seed of a spec's training."""
    return int((spec.get("training") or {}).get("seed", 0))


def apart_from_seed(spec: Mapping[str, Any]) -> str:
    """Return a text that is the same for specs that differ by seed, repeat or suite alone."""
    content = {key: value for key, value in spec.items() if key not in ("suite", "repeat")}
    content["training"] = {**(spec.get("training") or {}), "seed": 0}
    return json.dumps(content, sort_keys=True, default=str)


def _show(value: object) -> str:
    if isinstance(value, list | tuple):
        return "/".join(map(str, value))
    return str(value)
