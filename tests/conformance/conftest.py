"""Pools of ranks that the tests of a module share, and their folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="module", autouse=True)
def _module_pools() -> Iterator[None]:
    """End the ranks of a module's pools with it; without torch there are none."""
    yield
    pool = sys.modules.get("pool")
    if pool is not None:
        pool.close_all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks of a module's pools meet."""
    return tmp_path_factory.mktemp("pools")
