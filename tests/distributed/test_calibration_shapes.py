"""The sweep of shapes: what it spans, that it does what it says, and its samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnnbench.costs.facts import Facts
from gnnbench_runtime import kernels
from gnnbench_runtime.calibration import fits, shapes
from gnnbench_runtime.calibration.shapes import ELEMENTS, FLOPS, Shapes, spread, sweep_shapes

pytestmark = pytest.mark.distributed
CPU = torch.device("cpu")


class _Alone:
    def sync(self) -> None:
        """No peer to wait for."""


@pytest.fixture(scope="module")
def made() -> Shapes:
    return Shapes(CPU, kernels.backend(CPU, 1))


def test_sizes_span_rows_inputs_and_outputs_within_their_limits() -> None:
    sizes = np.array(list(spread(24)))
    assert len(set(map(tuple, sizes.tolist()))) == 24
    rows, inputs, outputs = sizes.T
    assert rows.max() > 200_000 and rows.min() < 300
    assert inputs.max() > 5_000 and inputs.min() < 32
    assert outputs.max() > 300 and outputs.min() < 4
    assert (rows * np.maximum(inputs, outputs)).max() <= ELEMENTS
    assert (2.0 * rows * inputs * outputs).max() <= FLOPS
    assert [*spread(12), *spread(12, 12)] == [*spread(24)]  # turns take different ones


def test_every_product_of_a_layer_is_the_product_that_its_work_says(made: Shapes) -> None:
    made.reset()
    found = {}
    for done, call in made.of(300, 20, 5):
        call()
        found.setdefault(done.op, done)
    assert set(found) == {
        *("gemm_nn", "gemm_nn_bias", "gemm_nn_add", "gemm_tn", "gemm_nt", "gemm_nt_add"),
        *("gather", "scatter_add", "spmm", "spmm_weighted", "spmm_weighted_t", "sddmm_dot"),
    }
    sizes = {op: (w.rows, w.inner, w.width) for op, w in found.items() if w.kind == "gemm"}
    assert sizes["gemm_nn"] == (300, 20, 5)
    assert sizes["gemm_tn"] == (20, 300, 5)
    assert sizes["gemm_nt"] == (300, 5, 20)


def test_a_product_of_ones_counts_its_inner_size(made: Shapes) -> None:
    made.reset()
    calls = dict((done.op, call) for done, call in made.of(40, 30, 6) if done.kind == "gemm")
    calls["gemm_nn"]()
    assert torch.all(made._view(1, 40, 6) == 30.0)
    made.reset()
    calls["gemm_tn"]()
    assert torch.all(made._weight(30, 6) == 40.0)


def test_sparse_products_come_with_near_and_with_far_reads(made: Shapes) -> None:
    made.reset()
    near, far = [done for done, _ in made._sparse(20_000, 7, 16)]
    assert (near.rows, near.nonzeros, near.width) == (far.rows, far.nonzeros, far.width)
    one, other = (Facts.of([done]).missed(2_000 * 64.0)[0] for done in (near, far))
    assert one < 0.3 < 0.7 < other  # most first reads of the near one are far, the others not


def test_samples_of_the_sweep_are_fitted_like_those_of_probes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapes, "FLOPS", 1e6)
    monkeypatch.setattr(shapes, "ELEMENTS", 200_000)
    monkeypatch.setattr(shapes, "ENTRIES", 20_000)
    backend = kernels.backend(CPU, 1)
    wanted = frozenset({"gemm_nn", "spmm", "gather"})
    found = sweep_shapes(CPU, backend, _Alone(), count=8, workload=3, needed=wanted)  # type: ignore[arg-type]
    assert {entry["op"] for entry in found} == wanted
    assert {entry["workload"] for entry in found} == set(range(4, 12))
    content = {"steps": found, "probes": [1e-3]}
    models = {model.op: model for model in fits.fit_operations([content], 1, 1e-3)}
    assert set(models) == {*wanted, fits.PROBE_OP} - {fits.PROBE_OP}
    assert models["spmm"].points == 16 and models["spmm"].blind_radius > 0
    assert all(len(model.range) > 0 for model in models.values())
