"""Registries of names, built in or added by entry points.

A table holds "name: module:ATTRIBUTE". A module is imported when its name is first used. Other
packages add names by entry points; defining a name twice is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from typing import Generic, TypeVar, cast

from gnnbench.errors import SpecError, UnknownName

T = TypeVar("T")


class Names(Generic[T]):
    """The registered things of one kind.

    Args:
        kind: word for them in messages, such as "approach".
        group: of the entry points by which other packages add theirs.
        tables: built-in names, one table per family.
    """

    def __init__(self, kind: str, group: str, *tables: Mapping[str, str]) -> None:
        self.kind, self.group, self._tables = kind, group, tables
        self._loaded: dict[str, T] = {}

    @cached_property
    def known(self) -> dict[str, str]:
        """Every name and where it is defined. Raises SpecError if a name is defined twice."""
        places = [(name, place) for table in self._tables for name, place in table.items()]
        places += [(point.name, point.value) for point in entry_points(group=self.group)]
        found: dict[str, str] = {}
        for name, place in places:
            if found.setdefault(name, place) != place:
                raise SpecError(
                    f"{self.kind} {name!r} is defined twice, by {found[name]} and by {place}: "
                    f"rename one of them (entry points of {self.group})"
                )
        return found

    def forget(self) -> None:
        """Discard the cached names, for tests that add some while the program runs."""
        self.__dict__.pop("known", None)
        self._loaded.clear()

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self.known)

    def get(self, name: str) -> T:
        """The object registered under the name. Raises UnknownName with a suggestion."""
        if name not in self._loaded:
            if name not in self.known:
                raise UnknownName(self.kind, name, self.known)
            module, _, attribute = self.known[name].partition(":")
            self._loaded[name] = cast(T, getattr(import_module(module), attribute))
        return self._loaded[name]
