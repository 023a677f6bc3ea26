"""What `gnnbench validate` prints of folders of measured runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench_reports.study import Study


def judge_runs(folders: Sequence[Path], *, as_json: bool) -> int:
    """Judge the predictions of measured runs, held-out protocols included."""
    from gnnbench.commands.output import emit_json
    from gnnbench.results import Results
    from gnnbench_reports.opening import read_study

    studies = [(folder, read_study(Results(folder, create=False))) for folder in folders]
    if as_json:
        emit_json({"runs": [_document(folder, study) for folder, study in studies]})
        return 0
    for folder, study in studies:
        _show(folder, study)
    return 0


def _document(folder: Path, study: Study) -> dict[str, Any]:
    from gnnbench_reports.held_out import held_out

    return {
        "folder": str(folder),
        "cluster": study.cluster,
        "summary": study.summary,
        "held_out": held_out(study.rows),
    }


def _show(folder: Path, study: Study) -> None:
    from gnnbench.commands.output import heading, table, text
    from gnnbench_reports import numbers
    from gnnbench_reports.held_out import held_out
    from gnnbench_reports.verdict import verdict

    text(f"{folder}, predicted on {study.cluster or 'no cluster'}")
    for sentence in verdict(study.summary, study.rows, {}):
        text(sentence, hanging="  ")
    rows = [
        {
            "left out": one.left_out,
            "groups": one.groups,
            "runs": one.runs,
            "median |error|": numbers.percent(one.error),
            "with the others' factor": numbers.percent(one.corrected),
            "inside the others' interval": numbers.percent(one.inside),
            "worst group": f"{one.worst[0]} ({numbers.percent(one.worst[1])})",
        }
        for one in held_out(study.rows)
    ]
    if rows:
        heading("Held-out protocols: what the other runs say of those that are left out")
        table(rows, list(rows[0]))
