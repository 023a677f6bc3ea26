"""The Python face of gnnbench: what the command line does, as functions.

Each function imports what it needs when it is called; training without the extra `runtime` ends in
MissingExtra with the install line.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench.graph.graph import Graph


def load_graph(path: str | Path, format: str = "auto", **options: Any) -> Graph:
    """Read a graph file or folder; `auto` recognises the format by names and keys.

    `options` are those of the format's reader.

    Raises:
        DataError: the file is absent, malformed or of no known format.
        UnknownName: no such format or option.
    """
    from gnnbench.graph import formats

    return formats.read(format, path, **options)
