"""The committed results can be compared, and the table in their README says what compare says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gnnbench.results import Results
from gnnbench_reports.finding import findings
from gnnbench_reports.numbers import percent
from gnnbench_reports.opening import read_study
from gnnbench_reports.order import orders

MEASURED = Path(__file__).parents[2] / "reports" / "measured"
FOLDERS = sorted(path.name for path in MEASURED.iterdir() if path.is_dir())


def rows() -> dict[str, list[str]]:
    """The lines of the README's error table, by folder."""
    text = (MEASURED / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## Errors of the predictions") :]
    lines = re.findall(r"^\| `([\w-]+)` \|(.+)\|$", table, flags=re.M)
    return {folder: [cell.strip() for cell in cells.split("|")] for folder, cells in lines}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_readme_says_what_compare_says(folder: str) -> None:
    study = read_study(Results(MEASURED / folder, create=False))
    summary = study.summary
    found = findings(study)
    if not study.rows:
        assert set(found) == {"quality"}
        assert all(row.within is not False for row in found["quality"].rows)
        return
    # A dataset with no pair of different programs that differ by more than the noise has no tau.
    taus = ", ".join(f"{row.tau:.2f}" for row in orders(study.rows) if row.tau is not None)
    assert rows()[folder] == [
        str(summary.num_compared),
        str(max(row.repeats for row in study.rows)),
        percent(summary.median_error),
        percent(summary.p90_error),
        percent(summary.coverage),
        taus,
        str(summary.bytes_equal),
    ]


def test_every_folder_of_times_is_in_the_table() -> None:
    assert set(rows()) == {
        name for name in FOLDERS if (MEASURED / name / "comparison.csv").exists()
    }
