"""Hit-rate curves: one per policy over the size of the cache, measured and predicted."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from gnnbench.results import Results
from gnnbench_reports.caches import cache_rows
from gnnbench_reports.figures import cache_hits, curves, drawing
from gnnbench_reports.opening import read_study
from gnnbench_reports.report import report


def frame_of(fabricator: Any) -> Any:
    return cache_hits.data(read_study(fabricator.results))


def test_a_curve_is_a_policy_and_its_points_are_sizes(fabricator: Any) -> None:
    for policy, gain in (("degree", 0.0), ("lru", 0.1)):
        for share in (0.05, 0.1, 0.4):
            fabricator.cached(policy, share, share + gain)
    frame = frame_of(fabricator)
    assert set(frame["series"]) == {"degree", "lru"}
    degree = frame[frame["series"] == "degree"].sort_values("share")
    assert degree["share"].tolist() == [0.05, 0.1, 0.4]
    assert degree["measured"].tolist() == pytest.approx([0.05, 0.1, 0.4])
    assert degree["predicted"].tolist() == pytest.approx([0.052, 0.102, 0.402])


def test_settings_apart_from_the_cache_make_curves_of_their_own(fabricator: Any) -> None:
    for share in (0.1, 0.2):
        fabricator.cached("lru", share, share)
        knobs = {"placement": "host", "cache_policy": "lru", "cache_share": share, "prefetch": 1}
        spec = fabricator.spec("cora", "gcn", "sampled", 1, knobs=knobs)
        fabricator.run(spec, ledgers=False, metrics={"cache_hit_rate": share})
    assert set(frame_of(fabricator)["series"]) == {"lru", "lru [prefetch=1]"}


def test_other_ranks_are_a_panel_of_their_own(fabricator: Any) -> None:
    for ranks in (1, 2):
        for share in (0.1, 0.2):
            fabricator.cached("lru", share, share, ranks=ranks)
    assert set(frame_of(fabricator)["model"]) == {"gcn · host · 1 rank", "gcn · host · 2 ranks"}


def test_caches_of_one_size_make_a_table_and_no_curve(fabricator: Any) -> None:
    fabricator.cached("lru", 0.1, 0.5)
    fabricator.cached("degree", 0.1, 0.4)
    assert len(frame_of(fabricator)) == 0


def test_a_run_without_room_for_its_cache_is_a_cross_with_its_reason(fabricator: Any) -> None:
    for share in (0.1, 0.2):
        fabricator.cached("lru", share, share)
    lost = {"status": "skipped", "reason": "out of memory", "periods": [], "metrics": {}}
    fabricator.cached("lru", 0.9, 0.9, **lost)
    frame = frame_of(fabricator)
    assert "Crosses at the lower edge: skipped" in cache_hits.caption(frame)
    with drawing.paper_style():
        figure = cache_hits.draw(frame)
        drawn = drawing.save(figure, "svg").decode()
    assert "<title>lru at 90 %: skipped, out of memory</title>" in drawn
    crosses = [line for panel in figure.axes for line in panel.lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[0.9]]


def test_caches_of_nodes_and_edges_are_told_apart(fabricator: Any) -> None:
    for share in (0.1, 0.3):
        knobs = {"node_cache": share, "edge_cache": share / 2, "cache_policy": "lru"}
        spec = fabricator.spec("mail", "tgn", "continuous", 1, knobs=knobs)
        metrics = {"nodes_hit_rate": share, "edges_hit_rate": share / 4}
        fabricator.run(spec, ledgers=False, metrics=metrics)
    rows = cache_rows(read_study(fabricator.results))
    found = sorted((row.rows, row.share, row.measured_rate) for row in rows)
    assert found == [
        ("edges", 0.05, 0.025),
        ("edges", 0.15, 0.075),
        ("nodes", 0.1, 0.1),
        ("nodes", 0.3, 0.3),
    ]
    assert frame_of(fabricator)["model"].nunique() == 2


def test_the_curve_is_drawn_again_from_the_kept_table(fabricator: Any, tmp_path: Any) -> None:
    for share in (0.1, 0.2):
        fabricator.cached("lru", share, share)
    out = report(fabricator.results).parent
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("comparison.csv", "caches.csv"):
        (kept / name).write_bytes((out / name).read_bytes())
    again = cache_hits.data(read_study(Results(kept)))
    pd.testing.assert_frame_equal(again, frame_of(fabricator))  # tables hold nine digits


@pytest.mark.parametrize(
    ("shares", "scale"), [([0.1, 0.2, 0.4], "linear"), ([0.001, 0.01, 0.1], "log")]
)
def test_sizes_far_apart_are_drawn_on_a_logarithmic_axis(
    fabricator: Any, shares: list[float], scale: str
) -> None:
    for share in shares:
        fabricator.cached("lru", share, share)
    with drawing.paper_style():
        (panel,) = cache_hits.draw(frame_of(fabricator)).axes
    assert panel.get_xscale() == scale
    low, high = panel.get_xlim()
    assert low <= min(shares) and max(shares) < high


def test_words_name_only_what_is_drawn(fabricator: Any) -> None:
    for share in (0.1, 0.2):
        fabricator.cached("lru", share, share)
    frame = frame_of(fabricator)
    assert curves.legend_words(frame, ("measured", "predicted")) == [
        "Markers: measured.",
        "Lines: predicted.",
    ]
    frame["predicted"] = float("nan")
    assert curves.legend_words(frame, ("measured", "predicted")) == ["Markers: measured."]
