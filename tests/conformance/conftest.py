"""Ranks that all tests here share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def pools() -> Iterator[Any]:
    """Pools of ranks, `gnnbench_runtime.conformance.pool.Pools`, which end with the session."""
    from gnnbench_runtime.conformance.pool import Pools

    found = Pools()
    yield found
    found.close()
