"""Intervals of sums: what operations have in common, and factors that cover unseen iterations."""

from __future__ import annotations

import numpy as np
import pytest

from gnnbench.cluster import Cluster, IterationModel, OpModel, load_cluster, parse_cluster
from gnnbench.costs.fit import conformal_radius
from gnnbench.costs.iterations import Held, alike, class_spread, iteration_model

OPS, STEPS = ("gemm", "spmm", "bias"), 4


def _held(errors: np.ndarray, scale: float = 1.0) -> list[Held]:  # type: ignore[type-arg]
    """Operations with errors [iterations, operations, steps], all steps predicted to take 1 s.

    `scale` is how much too wide the radii are.
    """
    sums = np.arange(len(errors)).repeat(STEPS).tolist()
    held = []
    for place, op in enumerate(OPS):
        own = errors[:, place].reshape(-1)
        model = OpModel(
            op=op,
            kind="gemm",
            form="linear",
            params={},
            radius=scale * conformal_radius(own),
            shared=0.0,
        )
        held.append(Held(model=model, seconds=np.exp(own), errors=own, sums=sums))
    return held


def _noise(common: float, count: int = 400, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    """Errors of steps of which operations of an iteration share a part of the variance."""
    rng = np.random.default_rng(seed)
    own = rng.normal(0.0, 0.2, (count, len(OPS), STEPS))
    # Of the mean of the steps of an operation, as `shared` is zero.
    together = rng.normal(0.0, 0.2 / STEPS**0.5, (count, 1, 1))
    return (1.0 - common) ** 0.5 * own + common**0.5 * together


def _kinds(count: int) -> dict[object, str]:
    return {n: "abcdef"[n % 6] for n in range(count)}


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_radii_that_are_too_wide_earn_a_factor_that_narrows_them(scale: float) -> None:
    found = iteration_model(_held(_noise(0.0), scale), 1, _kinds(400))
    assert found is not None and found.iterations == 400
    assert found.factor == pytest.approx(1.0 / scale, rel=0.15)
    assert found.inside == pytest.approx(0.9, abs=0.03)
    # The sum of twelve steps is surer than one step of them.
    assert found.radius == pytest.approx(
        conformal_radius(_noise(0.0).reshape(-1)) / 12**0.5, rel=0.2
    )


def test_errors_that_operations_have_in_common_are_found() -> None:
    apart, alike_ = (iteration_model(_held(_noise(share)), 1, {}) for share in (0.0, 1.0))
    assert apart is not None and alike_ is not None
    assert apart.common < 0.1 and alike_.common > 0.8
    assert apart.inside is None  # all on one kind of graph


def test_too_few_iterations_earn_nothing() -> None:
    assert iteration_model(_held(_noise(0.0, count=9)), 1, {}) is None


def test_steps_of_unlike_length_are_worth_fewer() -> None:
    assert alike(np.ones(5)) == pytest.approx(5.0)
    assert alike(np.array([1.0, 1e-9])) == pytest.approx(1.0)
    assert class_spread(0.5, 1.0, 9.0) == pytest.approx(3.0 * class_spread(0.5, 0.0, 9.0))


def test_a_cluster_keeps_what_it_earned_by_the_number_of_ranks() -> None:
    earned = tuple(IterationModel(co_located=n, factor=n / 10) for n in (2, 4))
    plain = load_cluster("cpu-2core")
    table = {**plain.to_table(), "iterations": [_table(model) for model in earned]}
    cluster: Cluster = parse_cluster(table, "here")
    factors = [cluster.iteration_errors(n) for n in (1, 2, 3, 4, 9)]
    assert [f.factor for f in factors if f is not None] == [0.2, 0.2, 0.2, 0.4, 0.4]
    assert plain.iteration_errors(1) is None


def _table(model: IterationModel) -> dict[str, object]:
    return {"co_located": model.co_located, "factor": model.factor}
