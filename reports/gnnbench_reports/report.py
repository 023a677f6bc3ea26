"""Write a report: the page, every figure as PDF, SVG, PNG and CSV, tables and traces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gnnbench.atomic import write_bytes, write_json, write_text
from gnnbench.errors import DataError
from gnnbench.results import SCHEMA, Results
from gnnbench.spreadsheet import guarded_frame
from gnnbench_reports import figures
from gnnbench_reports.blocks import Drawing
from gnnbench_reports.finding import Finding, findings
from gnnbench_reports.kept import TABLE, flat
from gnnbench_reports.opening import read_study
from gnnbench_reports.page import page
from gnnbench_reports.paper import write_paper
from gnnbench_reports.sections import sections, title
from gnnbench_reports.study import Study
from gnnbench_reports.summary import error_table
from gnnbench_reports.traces import write_traces

FORMATS = ("svg", "pdf", "png")


def report(results: Results, out: Path | None = None, cluster: str | None = None) -> Path:
    """Write the report of a results folder and return the page's path.

    Args:
        results: the folder.
        out: where to; by default `report` inside the results folder.
        cluster: which cluster's predictions to compare with, see `compare`.

    Raises:
        UnknownName: no prediction is for this cluster.
        DataError: a record or ledger is unreadable.
    """
    return write_report(read_study(results, cluster), out or results.folder / "report")


def write_report(
    study: Study,
    out: Path,
    *,
    found: Mapping[str, Finding] | None = None,
    drawn: Callable[[str], None] = lambda name: None,
) -> Path:
    """Write the report of a study into `out`; the page last, once everything it links exists.

    Args:
        study: what was compared.
        out: the folder, made if absent.
        found: the study's findings, where the caller has them already.
        drawn: called with the name of each figure when it is done.
    """
    found = findings(study) if found is None else found
    for folder in (out, out / "figures", out / "traces", out / "paper"):
        # A results folder of others may hold links; nothing is written through them.
        if folder.is_symlink():
            raise DataError(folder, "a link: name the folder itself with --out")
    (out / "figures").mkdir(parents=True, exist_ok=True)
    drawings = []
    for name in figures.NAMES:
        drawings.append(_draw(study, name, out))
        drawn(name)
    files = _tables(study, out, found)
    traces = write_traces(study, out / "traces")
    files |= {f"traces/{name}": what for name, what in traces.items()}
    by_name = {drawing.name: drawing for drawing in drawings}
    # Made once for the paper and the page: tables of very many runs take long to format.
    made = sections(study, by_name, found, out)
    write_paper(made, drawings, out, title(study))
    files["paper/example.tex"] = "a document with all figures, tables and captions, for LaTeX"
    path = out / "index.html"
    write_text(path, page(study, drawings, files, found, out, made))
    return path


def _draw(study: Study, name: str, out: Path) -> Drawing:
    from gnnbench_reports.figures import drawing

    module = figures.figure_module(name)
    stem = out / "figures" / name
    frame = module.data(study)
    if len(frame) == 0:
        # An earlier report may have had something to draw here.
        for kind in (*FORMATS, "csv", "txt"):
            stem.with_suffix(f".{kind}").unlink(missing_ok=True)
        return Drawing(name=name, title=module.TITLE, caption=module.CAPTION, svg=None)
    write_bytes(stem.with_suffix(".csv"), _csv(frame))
    with drawing.paper_style():
        figure = module.draw(frame)
        saved = {kind: drawing.save(figure, kind) for kind in FORMATS}
    words = figures.caption(module, frame)
    write_text(stem.with_suffix(".txt"), f"{module.TITLE}. {words}\n")
    for kind, content in saved.items():
        write_bytes(stem.with_suffix(f".{kind}"), content)
    return Drawing(
        name=name,
        title=module.TITLE,
        caption=words,
        svg=saved["svg"],
        files=tuple(f"figures/{name}.{kind}" for kind in ("pdf", "svg", "png", "csv")),
    )


def _tables(study: Study, out: Path, found: Mapping[str, Finding]) -> dict[str, str]:
    import pandas as pd

    def write(name: str, rows: Sequence[Any]) -> None:
        write_bytes(out / f"{name}.csv", _csv(pd.DataFrame(rows)))

    files: dict[str, str] = {}
    if study.rows:
        write_bytes(out / TABLE, _csv(pd.DataFrame([flat(row) for row in study.rows])))
        document = {
            "schema": SCHEMA,
            "cluster": study.cluster,
            "summary": dataclasses.asdict(study.summary),
            "rows": [dataclasses.asdict(row) for row in study.rows],
        }
        write_json(out / "comparison.json", document)
        files[TABLE] = "one row per configuration: times, error, bytes, memory, metrics"
        files["comparison.json"] = "the same with the volumes of each kind of step, and the summary"
    errors = error_table(study.rows)
    if errors:
        write("errors", [dataclasses.asdict(line) for line in errors])
        files["errors.csv"] = "the errors of the predictions by group"
    for name, one in found.items():
        write(name, [dataclasses.asdict(row) for row in one.rows])
        files[f"{name}.csv"] = one.title
    return files


def _csv(frame: Any) -> bytes:
    """CSV with times to nine digits; the same bytes on every platform."""
    text = guarded_frame(frame).to_csv(index=False, float_format="%.9g", lineterminator="\n")
    return bytes(text, "utf-8")
