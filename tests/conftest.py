"""What every test shares: source roots for child processes, reference data, the GPU rule."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

# First examples compile kernels and machines are shared: how long an example takes says nothing.
settings.register_profile("gnnbench", deadline=None)
settings.load_profile("gnnbench")

REPO = Path(__file__).resolve().parents[1]
SOURCE_ROOTS = (REPO, REPO / "runtime", REPO / "simulator", REPO / "reports")

# Ranks and commands started as processes must see this tree, not one that happens to be installed.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [*map(str, SOURCE_ROOTS), *filter(None, [os.environ.get("PYTHONPATH")])]
)
# Figures are drawn to files; a developer's display must not change them.
os.environ["MPLBACKEND"] = "agg"
# Output is captured as a pipe receives it; COLUMNS would wrap tables at a developer's width.
os.environ.pop("COLUMNS", None)


@cache
def _why_no_gpu() -> str | None:
    """Return why GPU tests cannot run here, or None."""
    try:
        import torch
    except ImportError:
        return "torch is not installed"
    return None if torch.cuda.is_available() else "this machine has no CUDA device"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip GPU tests where there is no GPU; torch is imported only if one was selected."""
    if item.get_closest_marker("gpu") and (reason := _why_no_gpu()):
        pytest.skip(reason)


@pytest.fixture(scope="session")
def repo() -> Path:
    """Return the repository's root."""
    return REPO


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of reference data beside the checkout, or skip."""
    folder = REPO.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("no reference data beside this checkout (../shared/data)")
    return folder
