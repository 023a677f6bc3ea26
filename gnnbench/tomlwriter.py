"""Write plain tables as TOML: the counterpart of `tomllib`, for machine-written files.

Small tables of scalars (a constant with its status and source) are written on one line, so that a
cluster file reads as a list of facts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any


def format_toml(table: Mapping[str, Any]) -> str:
    """Return `table` as TOML text. None is left out; keys keep their order within a table.

    Raises:
        ValueError: a value is not finite or of no TOML type.
    """
    return "\n".join(_lines(table, ())).strip("\n") + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    later: list[tuple[str, Any]] = []
    for key, value in table.items():
        if value is None:
            continue
        if _is_section(value):
            later.append((key, value))
        else:
            yield f"{_key(key)} = {_value(value)}"
    for key, value in later:
        place = (*path, key)
        name = ".".join(_key(part) for part in place)
        if isinstance(value, Mapping):
            yield f"\n[{name}]"
            yield from _lines(value, place)
        else:
            for entry in value:
                yield f"\n[[{name}]]"
                yield from _lines(entry, place)


def _is_section(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(isinstance(v, Mapping | list | tuple) for v in value.values())
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)


def _key(key: str) -> str:
    bare = key and all(c.isascii() and (c.isalnum() or c in "-_") for c in key)
    return key if bare else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"TOML file of finite numbers only, found {value}")
        return repr(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(v) for v in value) + "]"
    raise ValueError(f"no TOML type for {value!r}")
