"""What an order of the vertices gains: rows that differ in nothing else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gnnbench_reports.node_order import finding, gains
from gnnbench_reports.opening import read_study


def fill(fabricator: Any, order: str, measured: float, predicted: float, hidden: int = 64) -> None:
    spec = fabricator.spec("cora", "gcn", "single", 1)
    dataset = dataclasses.replace(
        spec.dataset, name="cora" if order == "given" else f"cora-{order}", order=order
    )
    model = dataclasses.replace(spec.model, hidden=hidden)
    spec = dataclasses.replace(spec, dataset=dataset, model=model)
    fabricator.run(spec, seconds=measured)
    fabricator.prediction(spec, seconds=predicted)


def test_an_order_is_compared_with_the_given_one_of_the_same_run(fabricator: Any) -> None:
    fill(fabricator, "given", 0.2, 0.3)
    fill(fabricator, "rcm", 0.1, 0.2)
    fill(fabricator, "random", 0.4, 0.6)
    fill(fabricator, "metis", 0.1, 0.1, hidden=32)  # another model: nothing to compare with
    study = read_study(fabricator.results)
    random, rcm = gains(study)
    assert (random.order, rcm.order, rcm.dataset) == ("random", "rcm", "cora")
    assert rcm.measured == pytest.approx(2.0) and rcm.predicted == pytest.approx(1.5)
    assert random.measured == pytest.approx(0.5)
    found = finding(study)
    assert found is not None
    assert found.verdict == (
        "Order of the vertices of cora: rcm, 2.00× as fast as in the given order (measured; "
        "predicted 1.50×).",
    )


def test_where_no_order_is_faster_it_says_so(fabricator: Any) -> None:
    fill(fabricator, "given", 0.2, 0.2)
    fill(fabricator, "degree", 0.3, 0.3)
    found = finding(read_study(fabricator.results))
    assert found is not None
    assert found.verdict == ("Order of the vertices of cora: the given one is the fastest.",)


def test_without_a_second_order_there_is_no_finding(fabricator: Any) -> None:
    fill(fabricator, "given", 0.2, 0.2)
    assert finding(read_study(fabricator.results)) is None
