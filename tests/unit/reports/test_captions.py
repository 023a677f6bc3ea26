"""A caption describes its own plot: no bar, line or mark that the plot lacks."""

from __future__ import annotations

from typing import Any

import pytest

from gnnbench_reports import figures
from gnnbench_reports.opening import read_study


@pytest.mark.parametrize("name", ["phases", "memory"])
def test_a_caption_names_the_sides_that_are_drawn(name: str, fabricator: Any) -> None:
    run = fabricator.spec()
    fabricator.run(run)
    module = figures.figure_module(name)
    alone = figures.caption(module, module.data(read_study(fabricator.results)))
    fabricator.prediction(run)
    both = figures.caption(module, module.data(read_study(fabricator.results)))
    assert "Hatched" not in alone and "Hatched lower bar: predicted" in both
    assert "per period" not in both


def test_parity_names_repeats_and_ranks_only_where_they_occur(fabricator: Any) -> None:
    run = fabricator.spec(ranks=1)
    fabricator.run(run)
    fabricator.prediction(run)
    module = figures.figure_module("parity")
    words = figures.caption(module, module.data(read_study(fabricator.results)))
    assert "Horizontal bars" not in words and "Hollow markers" not in words
