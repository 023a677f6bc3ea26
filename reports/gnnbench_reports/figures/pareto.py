"""Time per period against its price, over approaches, rank counts and machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnnbench_reports.figures import drawing
from gnnbench_reports.labels import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gnnbench.approaches.card import Look
    from gnnbench_reports.study import Study

NAME = "pareto"
TITLE = "Time against price"
CAPTION = (
    "Predicted time per period over its price on rented hosts, both axes logarithmic; lower and "
    "further left is better. Grey line: configurations that no other one beats in both; beside "
    "their marks {said}. Whole hosts are paid by the second; loading is left out."
)


def data(study: Study) -> Any:
    """One row per prediction on a machine with a price; `best` marks the frontier."""
    import pandas as pd

    from gnnbench_reports.opening import find_machine

    rates: dict[str, float | None] = {}
    found = []
    # Of several machines, the label ends with the cluster, which has a column of its own.
    several = len({row.cluster for row in study.rows if row.cluster}) > 1
    for row in study.rows:
        if row.predicted_period_s is None or not row.ranks_per_host:
            continue
        if row.cluster not in rates:
            machine = find_machine(study.results, row.cluster)
            price = None if machine is None else machine.price
            rate = None if price is None else price.usd_per_hour
            rates[row.cluster] = None if rate is None else rate.value
        per_hour = rates[row.cluster]
        if per_hour:
            hosts = -(-row.ranks // row.ranks_per_host)
            seconds = row.predicted_period_s
            usd = seconds * hosts * per_hour / 3600
            label = row.label.removesuffix(f" on {row.cluster}") if several else row.label
            where = (row.dataset, row.model, label, row.ranks, row.cluster, row.period)
            found.append((*where, seconds, usd, row.predicted_low_s, row.predicted_high_s))
    names = ["dataset", "model", "approach", "ranks", "cluster", "period"]
    names += ["predicted_period_s", "usd_per_period", "predicted_low_s", "predicted_high_s"]
    frame = pd.DataFrame(found, columns=names)
    frame["best"] = [_is_best(frame, row) for row in frame.to_dict("records")]
    return frame


def caption(frame: Any) -> str:
    """The caption, with what is written beside the marks of this plot."""
    several = frame["cluster"].nunique() > 1
    return CAPTION.format(said="rank count and cluster" if several else "the rank count")


def _is_best(frame: Any, row: dict[str, Any]) -> bool:
    same = frame[(frame["dataset"] == row["dataset"]) & (frame["model"] == row["model"])]
    better = (same["predicted_period_s"] <= row["predicted_period_s"]) & (
        same["usd_per_period"] <= row["usd_per_period"]
    )
    beaten = better & (
        (same["predicted_period_s"] < row["predicted_period_s"])
        | (same["usd_per_period"] < row["usd_per_period"])
    )
    return not beaten.any()


def draw(frame: Any) -> Figure:
    """One panel per dataset and model, a colour and marker per approach."""
    groups = {key: group for key, group in frame.groupby(["dataset", "model"], sort=False)}
    figure, axes = drawing.panels(groups, heights=2.0, most_columns=2)
    looks = drawing.looks(frame["approach"])
    for key, panel in axes.items():
        _panel(panel, groups[key], looks, named=frame["cluster"].nunique() > 1)
    for panel in drawing.leftmost(axes):
        panel.set_ylabel(f"time per {drawing.period_noun(frame)}")
    for panel in drawing.lowest(axes):
        panel.set_xlabel(f"price per {drawing.period_noun(frame)}")
    drawing.legend_above(figure, drawing.legend_of(looks, lines=False))
    return figure


def _panel(panel: Axes, group: Any, looks: dict[str, Look], *, named: bool) -> None:
    drawing.log_axis(panel, "x", group["usd_per_period"], "USD")
    drawing.log_axis(panel, "y", group["predicted_period_s"], "s")
    low, high = panel.get_ylim()
    panel.set_ylim(low * (low / high) ** 0.06, high)  # room for the texts of the frontier
    frontier = group[group["best"]].sort_values("usd_per_period")
    panel.plot(
        frontier["usd_per_period"],
        frontier["predicted_period_s"],
        color="#bbbbbb",
        lw=1,
        zorder=1,
        drawstyle="steps-post",
    )
    told = set()
    for row in group.to_dict("records"):
        look, at = looks[row["approach"]], (row["usd_per_period"], row["predicted_period_s"])
        fill = look.colour if row["best"] else "white"
        panel.plot(*at, look.marker, color=look.colour, mfc=fill, ms=4, mew=0.8)
        # Programs that are one lie on one another: their text is written once.
        if row["best"] and (at, row["ranks"]) not in told:
            told.add((at, row["ranks"]))
            said = f"{row['ranks']} {printable(row['cluster'], 18)}" if named else str(row["ranks"])
            # Nothing lies below the frontier: its texts meet no other mark there.
            panel.annotate(said, at, (-2, -4), textcoords="offset points", fontsize=6, va="top")
        words = (
            f"{drawing.timed(row, 'predicted')}, {drawing.short(at[0], 'USD')} on {row['cluster']}"
        )
        drawing.hover(panel, [(*at, words)])
    panel.grid(visible=True)
