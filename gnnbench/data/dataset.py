"""What every kind of dataset can do, so that the rest of the house need not know which it is."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, Self


class Dataset(Protocol):
    """A graph, an edge stream or triples, in native form or in memory.

    Attributes:
        kind: "graph", "stream" or "triples".
        name: as suites call it.
        digest: of the content; "" for data that has not been saved in native form.
    """

    kind: ClassVar[str]

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def facts(self) -> dict[str, Any]:
        """The sizes that plans and records keep, by name."""
        ...

    def arrays(self) -> dict[str, Any]:
        """The arrays by name; absent ones are left out. They may be memory-mapped."""
        ...

    def miniature(self, num_nodes: int) -> Self:
        """A part of the dataset with the same widths and types, to rehearse a run on."""
        ...

    def check(self) -> None:
        """Raise DataError on the first broken invariant."""
