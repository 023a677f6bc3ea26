"""Fits to a handful of noisy samples, as a hasty calibration on a busy machine makes them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from gnnbench import work
from gnnbench.costs.fit import fit_op


@pytest.mark.parametrize("seed", range(6))
def test_wild_times_of_four_shapes_give_finite_constants_without_a_warning(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(8):
        rows, inner, width = (10 ** rng.uniform(0.5, [[5], [3.6], [2.7]], (3, 4))).astype(int)
        samples = [
            (work.gemm("gemm_nn", int(m), int(k), int(n), 4), float(10 ** rng.uniform(-6.5, 1)))
            for m, k, n in zip(rows, inner, width, strict=True)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = fit_op(samples)
        assert all(np.isfinite(value) for value in found.params.values())
        assert np.isfinite(found.radius)
