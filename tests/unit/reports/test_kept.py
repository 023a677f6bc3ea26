"""The tables of a report can be compared and reported again, without the records."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from gnnbench.errors import DataError, UnknownName
from gnnbench.results import Results
from gnnbench_reports.finding import findings
from gnnbench_reports.opening import read_study
from gnnbench_reports.report import report
from gnnbench_reports.study import Study

TABLES = ("comparison.csv", "quality.csv", "time_to_metric.csv")


@pytest.fixture
def tables(fabricator: Any, tmp_path: Path) -> tuple[Study, Path]:
    """The study of a results folder, and a folder with nothing but the tables of its report."""
    fabricator.whole_suite(datasets=("cora",), models=("gcn",), predicted=(1, 2), repeats=2)
    out = report(fabricator.results).parent
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in TABLES:
        shutil.copy(out / name, kept)
    return read_study(fabricator.results), kept


def test_tables_say_the_same_as_the_records(tables: tuple[Study, Path]) -> None:
    study, folder = tables
    again = read_study(Results(folder))
    # Whether bytes are equal is kept; the volumes themselves are not.
    assert dataclasses.asdict(again.summary) == pytest.approx(dataclasses.asdict(study.summary))
    for old, new in zip(study.rows, again.rows, strict=True):
        for name in ("label", "status", "reason", "ranks", "knobs", "inside_interval", "counted"):
            assert getattr(new, name) == getattr(old, name), name
        assert new.phases_predicted == pytest.approx(old.phases_predicted)
        # Tables hold nine digits.
        limits = new.memory.limit_bytes, old.memory.limit_bytes
        assert limits == (None, None) or limits[0] == pytest.approx(limits[1], rel=1e-8)
        assert new.test_metric == pytest.approx(old.test_metric)
    # Tables do not hold memory by category, from which `fits` is judged.
    verdicts = {name: one.verdict for name, one in findings(study).items() if name != "fits"}
    assert {name: one.verdict for name, one in findings(again).items()} == verdicts


def test_a_report_of_tables_has_the_figures_that_follow_from_them(
    tables: tuple[Study, Path],
) -> None:
    page = report(Results(tables[1]))
    figures = {path.stem for path in page.parent.glob("figures/*.pdf")}
    assert {"scaling", "parity", "memory", "phases"} <= figures
    assert (page.parent / "quality.csv").read_bytes() == (tables[1] / "quality.csv").read_bytes()


def test_a_table_of_another_version_is_named_with_what_to_do(tables: tuple[Study, Path]) -> None:
    path = tables[1] / TABLES[0]
    path.write_text(path.read_text().replace("measured_period_s", "measured_epoch_s", 1))
    with pytest.raises(DataError, match=r"'measured_period_s'.*write it again"):
        read_study(Results(tables[1]))


def test_a_cluster_that_the_table_does_not_hold_is_refused(tables: tuple[Study, Path]) -> None:
    with pytest.raises(UnknownName, match="did you mean 'bench'"):
        read_study(Results(tables[1]), "bnech")
