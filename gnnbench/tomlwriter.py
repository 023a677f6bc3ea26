"""Write plain tables as TOML, by tomlkit.

tomlkit and not tomli-w, for two reasons: a constant with its status and source stays an inline
table, so that a cluster file reads as a list of facts, one a line; and replacing one section of a
file that somebody edited leaves comments, order and spacing of all others alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def format_toml(table: Mapping[str, Any]) -> str:
    """Return `table` as TOML text. None is left out; scalars of a table come before its sections.

    Raises:
        ValueError: a value is not finite or of no TOML type.
    """
    import tomlkit

    document = tomlkit.document()
    _fill(document, table)
    return tomlkit.dumps(document)


def replace_section(text: str, name: str, table: Mapping[str, Any]) -> str:
    """Return TOML text with one top-level section replaced, or appended where there is none.

    Everything else, comments included, stays as it is.
    """
    import tomlkit

    document = tomlkit.parse(text)
    section = _item(table)
    if name in document:
        document[name] = section
    else:
        document.add(tomlkit.nl())
        document.append(name, section)
    return tomlkit.dumps(document)


def _fill(container: Any, table: Mapping[str, Any]) -> Any:
    known = {key: value for key, value in table.items() if value is not None}
    for key, value in sorted(known.items(), key=lambda pair: _is_section(pair[1])):
        container.append(key, _item(value))
    return container


def _item(value: Any) -> Any:
    import tomlkit

    if isinstance(value, Mapping):
        return _fill(tomlkit.table() if _is_section(value) else tomlkit.inline_table(), value)
    if isinstance(value, list | tuple) and _is_section(value):
        tables = tomlkit.aot()
        for entry in value:
            tables.append(_fill(tomlkit.table(), entry))
        return tables
    plain = _plain(value)
    try:
        return tomlkit.item(plain)
    except ValueError:
        raise ValueError(f"no TOML type for {value!r}") from None


def _plain(value: Any) -> Any:
    """Lists all the way down, because tomlkit wants them, and finite numbers."""
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"TOML file of finite numbers only, found {value}")
    return value


def _is_section(value: Any) -> bool:
    """Whether a value has lines of its own: a table of tables or lists, or a list of tables."""
    if isinstance(value, Mapping):
        return any(isinstance(v, Mapping | list | tuple) for v in value.values())
    return isinstance(value, list | tuple) and bool(value) and isinstance(value[0], Mapping)
