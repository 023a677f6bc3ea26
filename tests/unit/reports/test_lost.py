"""The table of what did not run: one line per reason, however many datasets and models have it."""

from __future__ import annotations

from typing import Any

from gnnbench_reports.blocks import Table
from gnnbench_reports.opening import read_study
from gnnbench_reports.sections import BLOCKS


def test_lines_that_differ_by_dataset_and_model_alone_are_one(fabricator: Any) -> None:
    skipped = {"status": "skipped", "periods": [], "memory": [], "metrics": {}}
    for dataset in ("arxiv", "cora"):
        for model in ("gcn", "sage"):
            spec = fabricator.spec(dataset, model, "single", 2)
            fabricator.run(spec, reason="single runs on 1 rank, 2 asked", **skipped)
    fabricator.run(fabricator.spec("cora", "gcn", "sampled"), reason="no batches", **skipped)
    table = _table(fabricator)
    assert [str(column.heading) for column in table.columns][-1] == "reason"
    assert [tuple(map(str, line)) for line in table.rows] == [
        ("skipped", "single", "2", "arxiv, cora: gcn, sage", "single runs on 1 rank, 2 asked"),
        ("skipped", "sampled", "2", "cora: gcn", "no batches"),
    ]


def test_a_failed_run_has_the_rank_and_the_phase_that_failed(fabricator: Any) -> None:
    lost = {"status": "failed", "periods": [], "memory": [], "metrics": {}}
    for dataset, model in (("arxiv", "gcn"), ("cora", "gcn"), ("cora", "sage")):
        spec = fabricator.spec(dataset, model, "sampled", 2)
        fabricator.run(spec, reason="died", failed_rank=1, failed_phase="backward", **lost)
    (line,) = _table(fabricator).rows
    assert line[3:] == ("arxiv: gcn; cora: gcn, sage", 1, "backward", "died")


def _table(fabricator: Any) -> Table:
    (table,) = (
        block
        for block in BLOCKS["lost"](read_study(fabricator.results))
        if isinstance(block, Table)
    )
    return table
