"""Systems whose host draws and slices batches: threads, lanes, half precision, exposed times."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import planned, row

from gnnbench.ledger import Row
from gnnbench.published.metrics import phase_time
from gnnbench.published.reason import Reason
from gnnbench.published.software import Loader
from gnnbench.published.systems import Case, case_of
from gnnbench.steps import Kind, Lane, Phase

SALIENT: dict[str, Any] = {
    "source": "SALIENT artifact (MLSys 2022)",
    "system": "SALIENT",
    "dataset": "ogbn-products",
    "fanout": "15-10-5",
    "batch": "1024",
    "hardware": "1x V100-32GB",
    "gpus": "1",
    "notes": "blocking (exposed) time per epoch; half-precision features",
}
GNNLAB: dict[str, Any] = {
    "model": "GCN",
    "fanout": "5-10-15 (run_config order)",
    "batch": "8000",
    "hardware": "8x V100-16GB; 2x Xeon 8163 (48 cores); 512GB",
    "dataset": "twitter-2010",
    "gpus": "1",
}


def loader(**given: Any) -> Loader:
    case = case_of(row(**given))
    assert isinstance(case, Case), case
    assert case.software.loader is not None
    return case.software.loader


@pytest.mark.parametrize(
    ("system", "copied", "sliced"),
    [("SALIENT", Lane.COPY, Lane.HOST), ("PyG", Lane.COMPUTE, Lane.HOST.at(1))],
)
def test_who_slices_decides_what_hides_behind_training(
    system: str, copied: Lane, sliced: Lane
) -> None:
    plans = planned(**{**SALIENT, "system": system})
    ours = {step.name: step for step in plans.ours.iterations[-1][0]}
    steps = {step.name: step for step in plans.released.iterations[-1][0]}
    assert steps["sample/draw"].lane is Lane.HOST
    assert steps["fetch/gather_slice"].lane is sliced
    assert steps["fetch/gather_host"].lane is copied
    # Twenty workers draw; features of half precision are half of ours.
    assert steps["sample/draw"].work.nonzeros == pytest.approx(
        ours["sample/draw"].work.nonzeros / 20, abs=1
    )
    half = ours["fetch/gather"].work.rows * 100 * 2
    assert steps["fetch/gather_host"].bytes == pytest.approx(half, rel=1e-3)  # pinned
    plans.released.validate()


def test_the_sparse_product_of_pyg_is_slower() -> None:
    plans = planned(**SALIENT)
    for own, theirs in zip(
        [s for s in plans.ours.iterations[-1][0] if s.kind is Kind.SPMM],
        [s for s in plans.released.iterations[-1][0] if s.kind is Kind.SPMM],
        strict=True,
    ):
        assert theirs.work.nonzeros == pytest.approx(2.4 * own.work.nonzeros, rel=1e-3)


def test_what_a_row_of_gnnlab_does_not_state_its_scripts_do() -> None:
    assert loader(**GNNLAB, system="DGL (CPU sampling)").workers == 24
    assert loader(**GNNLAB, system="DGL").sampler == "device"
    assert loader(**GNNLAB, system="DGL").slicers == 20  # bound by the host's memory
    assert loader(**{**GNNLAB, "gpus": "8"}, system="DGL").slicers == 2
    assert "start anew" in str(case_of(row(**{**GNNLAB, "gpus": "8"}, system="PyG")))
    shared = loader(**GNNLAB, system="SGNN (time-sharing baseline)")
    assert shared.hits == pytest.approx(0.1 * 0.727)  # one vertex in a hundred, by degree
    noted = {"notes": "cache 20% with CPU sampling, 7% with GPU sampling"}
    papers = {**GNNLAB, **noted, "dataset": "ogbn-papers100M", "metric": "extract_time_per_epoch"}
    assert loader(**papers, system="SGNN +cache (CPU sampling)").hits == pytest.approx(0.751)
    assert loader(**papers, system="SGNN +both").hits == pytest.approx(0.372, abs=0.01)
    assert loader(**papers, system="SGNN +GPU sampling").hits == 0.0
    unset = case_of(row(**{**GNNLAB, "dataset": "reddit"}, system="SGNN"))
    assert isinstance(unset, Reason)
    assert "share of the vertices" in str(unset)


def test_an_exposed_time_leaves_out_what_training_hides() -> None:
    def took(name: str, lane: Lane, phase: Phase, seconds: float) -> Row:
        return Row(0, 0, name, "", "", str(lane), phase.value, 0, 1, 0, 0, 0.0, seconds)

    ledger = [
        took("sample/draw", Lane.HOST, Phase.SAMPLE, 5.0),
        took("fetch/gather_slice", Lane.HOST, Phase.FETCH, 2.0),
        took("fetch/gather_host", Lane.COPY, Phase.FETCH, 1.0),
        took("fetch/copy", Lane.COMPUTE, Phase.FETCH, 0.5),
        took("forward", Lane.COMPUTE, Phase.FORWARD, 6.0),
    ]

    def exposed(metric: str) -> float | None:
        stated = row(**{**SALIENT, "metric": metric})
        return phase_time(stated, {0: ledger}, steps=1, period_s=7.5)

    assert exposed("sampling_slicing_time_per_epoch") == pytest.approx(1.0)
    assert exposed("transfer_time_per_epoch") == pytest.approx(0.5)
    assert exposed("train_time_per_epoch") == pytest.approx(6.0)
