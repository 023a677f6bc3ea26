"""The report: complete, self-contained, safe, the same every time, and fine with little data."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from gnnbench.cluster import load_cluster
from gnnbench.errors import DataError
from gnnbench.ledger import Row, write_ledger
from gnnbench.results import Results
from gnnbench.tomlwriter import format_toml
from gnnbench_reports import figures
from gnnbench_reports.figures import drawing
from gnnbench_reports.opening import read_study
from gnnbench_reports.report import report
from gnnbench_reports.traces import write_traces

HOSTILE = "<script>alert(1)</script>--><img src=x onerror=alert(2)>$\\bad{$\x00\"'漢"


def small(fabricator: Any) -> Any:
    fabricator.whole_suite(datasets=("cora",), models=("gcn",), predicted=(1, 2, 4), repeats=2)
    for ranks, moved in ((2, 10**9), (4, 10)):
        spec = fabricator.spec("cora", "gcn", "mixture", ranks)
        fabricator.prediction(spec, bytes=[{"all_to_all/forward": moved}])
    for share, hits in ((0.05, 0.3), (0.2, 0.6)):
        fabricator.cached("degree", share, hits)
    for buffer, read in ((4, 10**9), (8, 3 * 10**8)):
        fabricator.from_disk("comet", buffer, read, read // 2)
    spec = fabricator.spec("cora", "gcn", "single", 1)
    fabricator.prediction(spec, notes={"sensitivity": fabricator.swings})
    for gap in (0.1, 1.0):
        fabricator.arriving(gap, None, 0.5)
    rented = dataclasses.replace(load_cluster("g4dn.12xlarge"), name="bench")
    path = fabricator.results.cluster_file("bench")
    path.write_text(format_toml(rented.to_table()), encoding="utf-8")
    return fabricator.results


@pytest.fixture(scope="module")
def page(make_fabricator: Any) -> Path:
    """Return one report that many tests read and none changes."""
    return report(small(make_fabricator("shared")))


def test_every_figure_is_written_in_four_formats_and_linked(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in figures.NAMES:
        for kind in ("pdf", "svg", "png", "csv"):
            path = page.parent / "figures" / f"{name}.{kind}"
            assert path.stat().st_size > 100, path
            assert f'href="figures/{name}.{kind}"' in text


def test_the_page_fetches_nothing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "@import" not in text
    # One script, this package's own: its digest is the only one that a browser accepts.
    (script,) = re.findall(r'<script id="page">(.*?)</script>', text, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert text.count("<script") == 1
    words = (
        "fetch(",
        "XMLHttpRequest",
        "import(",
        "eval(",
        "innerHTML",
        "Function(",
        "http",
        "Storage",
    )
    assert not [word for word in words if word in script]
    # Only anchors of the page, files beside it and fragments within the drawings are referred to.
    targets = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert targets
    assert not [t for t in targets if re.match(r"[a-z]+:|//", t)]


def test_every_link_of_the_page_leads_to_a_file_or_an_anchor(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r'<a href="([^"]*)"', text):
        if target.startswith("#"):
            assert f'id="{target[1:]}"' in text, target
        else:
            assert (page.parent / unquote(target)).is_file(), target


def test_hostile_names_and_reasons_stay_text(fabricator: Any) -> None:
    for ranks in (1, 2):
        spec = fabricator.spec(dataset=HOSTILE, model="<b>", approach="<i>", ranks=ranks)
        fabricator.run(spec, device={"name": HOSTILE, HOSTILE: HOSTILE})
        fabricator.prediction(spec, cluster="<u>x", basis=HOSTILE, counted=False)
    fabricator.run(
        fabricator.spec(dataset=HOSTILE, repeat=1), status="failed", reason=HOSTILE, periods=[]
    )
    text = report(fabricator.results).read_text(encoding="utf-8")
    for tag in ("<script>", "<img", "<b>x", "<i>", "<u>", "-->"):
        body = re.sub(r"<!--.*?-->", "", text, flags=re.S) if tag == "-->" else text
        assert tag not in body, tag
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_findings_escape_names_too_and_open_the_page(fabricator: Any) -> None:
    for approach, ranks in (("single", 1), ("partition", 2)):
        spec = fabricator.spec(dataset=HOSTILE, model="<b>", approach=approach, ranks=ranks)
        fabricator.run(spec, metrics={"test_accuracy": 0.8})
    page = report(fabricator.results)
    text = page.read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "<b>," not in text
    verdict = text[: text.index("<nav>")]
    assert verdict.index('class="answer"') < verdict.index('class="verdict"')
    assert "Test accuracy within tolerance of the reference: 1 of 1 exact" in verdict
    assert (page.parent / "quality.csv").read_text().count("\n") >= 3


def test_two_reports_of_one_folder_are_the_same_bytes(page: Path) -> None:
    first, second = page.parent, page.parents[1] / "again"
    report(Results(first.parent), second)
    paths = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(paths) > 30
    for path in paths:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


def test_fonts_are_embedded_as_outlines_that_can_be_edited(page: Path) -> None:
    pdf = (page.parent / "figures" / "scaling.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf


def test_only_measurements_make_a_report(fabricator: Any) -> None:
    for ranks in (1, 2):
        fabricator.run(fabricator.spec(ranks=ranks))
    text = report(fabricator.results).read_text(encoding="utf-8")
    assert "2 configurations measured, none predicted" in text
    assert 'id="errors"' not in text


def test_only_predictions_make_a_report(fabricator: Any) -> None:
    for ranks in (1, 64):
        fabricator.prediction(fabricator.spec(ranks=ranks))
    text = report(fabricator.results).read_text(encoding="utf-8")
    assert "2 configurations predicted on cluster bench" in text
    assert "none measured" in text
    assert 'id="scaling"' in text


def test_only_failures_make_a_report(fabricator: Any) -> None:
    fabricator.run(fabricator.spec(), status="failed", reason="rank 1 died", periods=[], memory=[])
    text = report(fabricator.results).read_text(encoding="utf-8")
    assert "1 configuration failed" in text
    assert "rank 1 died" in text
    assert "<svg" not in text


def test_a_folder_without_results_is_refused(fabricator: Any) -> None:
    with pytest.raises(DataError, match="holds no runs and no predictions: `gnnbench run"):
        report(fabricator.results)


def test_a_figure_that_has_nothing_to_draw_any_more_is_removed(fabricator: Any) -> None:
    fabricator.run(fabricator.spec())
    fabricator.prediction(fabricator.spec())
    out = report(fabricator.results).parent
    assert (out / "figures" / "parity.pdf").exists()
    for path in fabricator.results.folder.glob("predictions/*/prediction.json"):
        path.unlink()
    report(fabricator.results, out)
    assert not (out / "figures" / "parity.pdf").exists()


def test_a_trace_shows_both_worlds_of_a_telling_prediction(fabricator: Any) -> None:
    spec = fabricator.spec()
    fabricator.run(spec)
    record = fabricator.prediction(spec)
    rows = [Row(0, 0, "f", "gemm", "gemm", "compute", "forward", 0, 1, 0, 0, 0.0, 1.0)]
    folder = fabricator.results.prediction_folder(record)
    write_ledger(folder / "ledger-rank1.csv", rows)
    (name,) = write_traces(read_study(fabricator.results), fabricator.results.folder / "traces")
    text = (fabricator.results.folder / "traces" / name).read_text()
    assert "measured rank 1" in text
    assert "predicted rank 1" in text
    assert "rank 0" not in text


@pytest.mark.parametrize("name", figures.NAMES)
def test_the_csv_beside_a_figure_is_what_was_drawn(name: str, page: Path) -> None:
    frame = figures.figure_module(name).data(read_study(Results(page.parents[1])))
    written = pd.read_csv(page.parent / "figures" / f"{name}.csv")
    assert list(written.columns) == list(frame.columns)
    assert len(written) == len(frame) > 0


@pytest.mark.parametrize("name", ["scaling", "phases", "parity", "memory", "quality"])
def test_a_figure_of_a_single_configuration_can_be_drawn(name: str, fabricator: Any) -> None:
    fabricator.run(fabricator.spec(ranks=1))
    fabricator.prediction(fabricator.spec(ranks=1))
    module = figures.figure_module(name)
    with drawing.paper_style():
        figure = module.draw(module.data(read_study(fabricator.results)))
        assert drawing.save(figure, "pdf").startswith(b"%PDF")


def test_no_label_of_the_scaling_figure_touches_another(fabricator: Any) -> None:
    fabricator.whole_suite(repeats=1, models=("gcn",))
    module = figures.figure_module("scaling")
    with drawing.paper_style():
        figure = module.draw(module.data(read_study(fabricator.results)))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        boxes = [
            label.get_window_extent(renderer)
            for panel in figure.axes
            for label in (*panel.get_xticklabels(), *panel.get_yticklabels(), panel.title)
            if label.get_text()
        ]
    touching = [
        (a, b)
        for at, a in enumerate(boxes)
        for b in boxes[at + 1 :]
        if a.shrunk(0.9, 0.9).overlaps(b)
    ]
    assert not touching


def test_known_approaches_keep_their_colour_in_any_company() -> None:
    alone, together = drawing.looks(["partition"]), drawing.looks(["x", "partition", "single"])
    assert alone["partition"] == together["partition"]
    assert len({look.colour for look in together.values()}) == 3
