"""What figures share: units, colours that never change, texts that appear on pointing."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from gnnbench_reports import numbers
from gnnbench_reports.figures import collectives, drawing


@pytest.mark.parametrize("size", [3, 70_000, 5_300_000, 2**31, 3 * 2**40])
def test_bytes_have_the_units_of_the_tables(size: int) -> None:
    assert drawing.short(float(size), "bytes").split()[1] == numbers.size(size).split()[1]


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
