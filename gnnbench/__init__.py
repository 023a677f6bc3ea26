"""Train graph neural networks at scale for real, predict the same runs, compare the two.

    import gnnbench as gb

Every public name is looked up on first use, so that importing the package costs nothing and a
machine without torch can still predict, compare and report.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from gnnbench import kernel_cache

kernel_cache.choose()

if TYPE_CHECKING:
    from gnnbench.api import (
        advise,
        calibrate,
        compare,
        load_dataset,
        load_suite,
        predict,
        profile,
        report,
        run,
    )
    from gnnbench.cluster import Cluster
    from gnnbench.data.graph import Graph
    from gnnbench.data.stream import EdgeStream
    from gnnbench.data.triples import Triples
    from gnnbench.errors import GnnbenchError
    from gnnbench.suites import Suite

__version__ = "0.1.0"

__all__ = [
    "Cluster",
    "EdgeStream",
    "GnnbenchError",
    "Graph",
    "Suite",
    "Triples",
    "advise",
    "calibrate",
    "compare",
    "load_dataset",
    "load_suite",
    "predict",
    "profile",
    "report",
    "run",
]

_HOMES = {
    "Cluster": "gnnbench.cluster",
    "EdgeStream": "gnnbench.data.stream",
    "GnnbenchError": "gnnbench.errors",
    "Graph": "gnnbench.data.graph",
    "Suite": "gnnbench.suites",
    "Triples": "gnnbench.data.triples",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'gnnbench' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES.get(name, "gnnbench.api")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
