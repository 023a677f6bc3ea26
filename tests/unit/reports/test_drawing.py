"""What figures share: units, colours that never change, texts that appear on pointing."""

from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.figure import Figure

from gnnbench_reports import numbers
from gnnbench_reports.figures import bars, collectives, drawing


@pytest.mark.parametrize("size", [3, 70_000, 5_300_000, 2**31, 3 * 2**40])
def test_bytes_have_the_units_of_the_tables(size: int) -> None:
    assert drawing.short(float(size), "bytes").split()[1] == numbers.size(size).split()[1]


def test_a_tick_of_a_thousand_units_is_written_out() -> None:
    assert drawing.short(1.0, "s", 1e-3) == "1,000 ms"
    assert drawing.short(0.9994, "s", 1e-3) == "999 ms"


def test_panels_in_lines_with_long_labels_come_two_in_a_line() -> None:
    places = [(f"data{at}", f"model{at}") for at in range(4)]
    for label, columns in (("out-of-core [8, 16, comet]", 2), ("single", 4)):
        rows = [(*place, label, 1, "measured", "disk", 2.0) for place in places]
        names = ["dataset", "model", "approach", "ranks", "side", "part", "seconds"]
        frame = pd.DataFrame(rows, columns=names)
        colours = {"disk": "#882255"}
        made = bars.draw_bars(
            frame, value="seconds", part="part", colours=colours, kind="s", xlabel="time"
        )
        assert made.axes[0].get_subplotspec().get_gridspec().ncols == columns


def test_an_axis_of_bytes_is_ticked_at_binary_sizes() -> None:
    panel = Figure().add_subplot()
    drawing.log_axis(panel, "y", [3 * 2**20, 40 * 2**20], "bytes")
    labels = [drawing.short(tick, "bytes") for tick in panel.get_yticks()]
    assert labels == ["4 MiB", "8 MiB", "16 MiB", "32 MiB"]


def test_a_collective_has_one_colour_in_every_report() -> None:
    assert collectives.colour("all-reduce · sync") == "#aa3377"
    assert collectives.colour("all-to-all · forward") == "#4477aa"
    assert collectives.colour("all-to-all · backward") != collectives.colour("all-to-all · forward")


def test_a_mark_shows_its_value_and_a_hostile_name_stays_text() -> None:
    figure = Figure()
    (line,) = figure.add_subplot().plot([1], [1], "o")
    drawing.tip(line, 'a<script>"&: 3 ms')
    shown = drawing.save(figure, "svg").decode()
    assert "<title>a&lt;script&gt;&quot;&amp;: 3 ms</title>" in shown
    assert "tip:" not in shown
