"""The strict loader: a table of a TOML file into a frozen dataclass, reporting every problem.

A field may carry `metadata` made by `bounds` or `choices`. Problems are collected as lines of the
form `file: key: found X; allowed Y; suggestion`; all mistakes of a file are reported at once.

Why not pydantic: it collects all problems too, but every message would have to be rewritten (the
place in the TOML file, the suggestion for a misspelt key, the allowed values), which is most of
this module; and importing it takes 0.14 s of CPU time, where all of `gnnbench --help` takes 0.09 s
(two-core development machine, November 2026).
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from gnnbench.errors import SpecError, suggest

T = TypeVar("T")
# A results folder builds the same few classes thousands of times.
_hints = lru_cache(maxsize=512)(get_type_hints)


def bounds(
    low: float | None = None, high: float | None = None, *, open_high: bool = False
) -> dict[str, Any]:
    """Metadata of a number field: low <= value <= high (or < high)."""
    return {"low": low, "high": high, "open_high": open_high}


def choices(*allowed: str) -> dict[str, Any]:
    """Metadata of a text field: one of these."""
    return {"choices": allowed}


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file; SpecError with file and line when it is missing or malformed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SpecError(f"{path}: cannot read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError(f"{path}: not valid TOML: {error}") from None


def build(cls: type[T], table: object, where: str, problems: list[str]) -> T | None:
    """Return `cls(**table)` or None, adding to `problems` every unknown key and wrong value."""
    if not isinstance(table, Mapping):
        problems.append(f"{where}: found {_show(table)}, expected a table")
        return None
    hints = _hints(cls)  # type: ignore[arg-type]
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    before = len(problems)
    for key in table:
        if key not in fields:
            problems.append(f"{where}.{key}: unknown key, {suggest(str(key), fields)}")
    values: dict[str, Any] = {}
    for name, spec in fields.items():
        if name in table:
            values[name] = convert(
                table[name], hints[name], f"{where}.{name}", problems, spec.metadata
            )
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            problems.append(f"{where}.{name}: missing, expected {type_name(hints[name])}")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except SpecError as error:
        problems += [f"{where}: {line}" for line in error.problems]
        return None


def convert(
    value: object,
    hint: Any,
    where: str,
    problems: list[str],
    metadata: Mapping[str, Any] | None = None,
) -> Any:
    """Check one value against a type hint and its metadata."""
    meta = metadata or {}
    origin, args = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        # A list is judged as the list that it was meant to be, anything else as the other option.
        listed = isinstance(value, list | tuple)
        options.sort(key=lambda option: _is_list(option) != listed)
        trials: list[list[str]] = []
        for option in options:
            trial: list[str] = []
            result = convert(value, option, where, trial, meta)
            if not trial:
                return result
            trials.append(trial)
        problems += trials[0]
        return None
    if origin in (tuple, list):
        if not isinstance(value, list | tuple):
            problems.append(f"{where}: found {_show(value)}, expected a list")
            return origin()
        return origin(
            convert(item, args[0], f"{where}[{i}]", problems, meta) for i, item in enumerate(value)
        )
    if origin in (dict, Mapping) or hint is dict or origin is typing.get_origin(Mapping[str, Any]):
        if not isinstance(value, Mapping):
            problems.append(f"{where}: found {_show(value)}, expected a table")
            return {}
        _check_plain(value, where, problems)
        if len(args) == 2 and (args[1] in (int, float, str) or dataclasses.is_dataclass(args[1])):
            return {k: convert(v, args[1], f"{where}.{k}", problems) for k, v in value.items()}
        return dict(value)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type[Any], hint), value, where, problems)
    if hint is Any or hint is object:
        return value
    return _scalar(value, hint, where, problems, meta)


def _is_list(hint: Any) -> bool:
    origin: Any = get_origin(hint)
    return origin is tuple


def _scalar(
    value: object, hint: Any, where: str, problems: list[str], meta: Mapping[str, Any]
) -> Any:
    ok = isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value, ok = float(value), True
    if not ok:
        # Lists multiply the runs of an entry, but not the knobs of an approach.
        one = ": one value; another takes another entry" if isinstance(value, list) else ""
        one = one if ".knobs." in where else ""
        problems.append(f"{where}: found {_show(value)}, expected {type_name(hint)}{one}")
        return value
    if isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{where}: found {value}, expected a finite number")
        return value
    if "choices" in meta and value not in meta["choices"]:
        problems.append(f"{where}: found {_show(value)}, {suggest(str(value), meta['choices'])}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = meta.get("low"), meta.get("high")
        above = high is not None and (value >= high if meta.get("open_high") else value > high)
        if (low is not None and value < low) or above:
            problems.append(f"{where}: found {value}, allowed {_range(low, high, meta)}")
    return value


def _check_plain(value: object, where: str, problems: list[str]) -> None:
    """Report values that a record cannot store: dates, nan, infinity."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_plain(item, f"{where}.{key}", problems)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check_plain(item, f"{where}[{number}]", problems)
    elif isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{where}: found {value}, expected a finite number")
    elif not (value is None or isinstance(value, str | int | float)):
        problems.append(
            f"{where}: found {_show(value)}, expected text, a number, a list or a table"
        )


def _range(low: float | None, high: float | None, meta: Mapping[str, Any]) -> str:
    if high is None:
        return f">= {low}"
    text = f"< {high}" if meta.get("open_high") else f"<= {high}"
    return text if low is None else f">= {low} and {text}"


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def type_name(hint: Any) -> str:
    """The type of a key in words, such as "text" or "a list of whole numbers"."""
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    if hint in names:
        return names[hint]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(type_name(option) for option in args if option is not type(None))
    if origin in (tuple, list):
        return f"a list of {_PLURALS.get(args[0]) or type_name(args[0])}"
    if origin is dict or hint is dict:
        return "a table"
    return getattr(hint, "__name__", str(hint))


_PLURALS: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}


def raise_all(problems: Iterable[str]) -> None:
    """Raise one SpecError if there are problems."""
    lines = list(problems)
    if lines:
        raise SpecError(lines)
