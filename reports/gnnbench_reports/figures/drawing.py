"""What figures share: the style sheet, small multiples, colours, axes in plain words, saving."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from gnnbench.approaches.card import Look
from gnnbench_reports import numbers
from gnnbench_reports.labels import card, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_IN, PAGE_IN = 3.3, 6.9
MAX_COLUMNS = 4
PNG_DPI = 200
_LINE_IN, _LINES_RESERVED = 0.17, 3
"""Height of a line of a legend, and lines for which `panels` reserves height."""
STYLE = Path(__file__).parents[1] / "styles" / "gnnbench.mplstyle"

# For approaches without a look of their own, and for the settings of one approach.
_OTHER_LOOKS = (
    Look(colour="#5F5F5F", marker="d"),
    Look(colour="#117733", marker="p"),
    Look(colour="#B2182B", marker="*"),
    Look(colour="#3B5BA5", marker="H"),
    Look(colour="#A6761D", marker="8"),
    Look(colour="#66A61E", marker="D"),
    Look(colour="#1B9E9E", marker="v"),
    Look(colour="#E7298A", marker="P"),
)
# Paul Tol's bright and muted schemes: blues and greens compute, warm colours move data or wait.
PART_COLOURS = {
    "load": "#DDCC77",
    "sample": "#228833",
    "fetch": "#CCBB44",
    "forward": "#4477AA",
    "backward": "#66CCEE",
    "sync": "#AA3377",
    "update": "#332288",
    "host": "#88CC99",
    "copy": "#CC99BB",
    "disk": "#882255",
    "communication": "#EE6677",
    "waiting": "#BBBBBB",
    "hidden": "#EE6677",
}


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """Colour and marker of each label, in the order of legends: approaches with a card first.

    An approach looks the same in every figure, as its card says. A label that is no approach's name
    alone, such as one with settings, takes the next of the other looks.
    """
    names = sorted(set(labels))
    known = {name: card(name) for name in names}
    cards = {name: one for name, one in known.items() if one is not None and one.look != Look()}
    # A reference comes before the approaches that are compared with it.
    own = sorted(cards, key=lambda name: (cards[name].promise.reference != name, name))
    found = {name: cards[name].look for name in own}
    others = [name for name in names if name not in cards]
    return found | {name: _other_look(at) for at, name in enumerate(others)}


def _other_look(at: int) -> Look:
    """Colour and marker of the label number `at`; each pair occurs once among the first 64."""
    count = len(_OTHER_LOOKS)
    colour = _OTHER_LOOKS[at % count].colour
    return Look(colour=colour, marker=_OTHER_LOOKS[(at + 3 * (at // count)) % count].marker)


def line_style(look: Look) -> Any:
    """The line style of an approach, as matplotlib takes it."""
    return (0, (5, 1.5)) if look.dashed else "-"


def legend_of(looks: Mapping[str, Look], *, lines: bool = True) -> list[Any]:
    """Legend entries of approaches, with a line through the marker or without."""
    from matplotlib.lines import Line2D

    return [
        Line2D(
            [],
            [],
            color=look.colour,
            marker=look.marker,
            ls=line_style(look) if lines else "",
            label=printable(label),
        )
        for label, look in looks.items()
    ]


_TIP = "tip:"


def tip(artist: Any, text: str) -> None:
    """Give a mark a text that the page shows when one points at it."""
    artist.set_gid(_TIP + quote(printable(text, 200), safe=""))


def hover(panel: Axes, points: Iterable[tuple[float, float, str]]) -> None:
    """Make points of a line or an error bar show a text, by invisible marks above them."""
    for x, y, text in points:
        (mark,) = panel.plot(
            [x], [y], "o", ms=6, mew=0, alpha=0.0, zorder=9, scalex=False, scaley=False
        )
        mark.set_in_layout(False)
        tip(mark, text)


def timed(row: Mapping[str, Any], side: str) -> str:
    """A row's measured or predicted time in words, such as "single on 1, measured: 25 ms ± 3 %"."""
    value = row[f"{side}_period_s"]
    ranks = f" on {row['ranks']}" if "ranks" in row else ""
    text = f"{row['approach']}{ranks}, {side}: "
    if side == "measured":
        spread = row.get("repeat_spread")
        known = spread == spread and spread is not None
        return (
            text
            + numbers.seconds(value, spread if known else None)
            + (f" ± {numbers.percent(spread, 0.001)}" if known else "")
        )
    low, high = row.get("predicted_low_s"), row.get("predicted_high_s")
    words = text + numbers.seconds(value, 0.01)
    return words if low != low or low is None else f"{words}, {numbers.interval(low, high)}"


def _with_tips(svg: bytes) -> bytes:
    """The drawing with titles in place of the identifiers that `tip` made.

    Matplotlib writes `clip-path` and text outside of the group, so the title comes first in it, as
    SVG wants.
    """

    def titled(found: re.Match[str]) -> str:
        return f"<g><title>{escape(unquote(found[1]))}</title>"

    return re.sub(rf'<g id="{_TIP}([^"]*)">', titled, svg.decode("utf-8")).encode("utf-8")


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw and save under the style sheet; a character that the font lacks is drawn as a box."""
    from matplotlib import rc_context

    with warnings.catch_warnings(), rc_context(fname=str(STYLE)):
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")
        yield


Key = tuple[str, str]


def panels(
    keys: Iterable[Key],
    *,
    heights: Mapping[Key, float] | float,
    spare_in: float = 0.62,
    most_columns: int = MAX_COLUMNS,
) -> tuple[Figure, dict[Key, Axes]]:
    """Make one panel per (dataset, model): models down, datasets across, where `is_matrix` says so.

    `heights` is the height of a panel's axes in inches; `spare_in` what titles and legend need.
    With more datasets than `most_columns`, panels run on line by line.
    """
    from matplotlib.figure import Figure

    ordered = list(dict.fromkeys(keys))
    # Datasets with most models come first, so that panels are missing at the right of a line only.
    panels_of = Counter(dataset for dataset, _ in ordered)
    datasets = sorted(panels_of, key=lambda dataset: -panels_of[dataset])
    models = list(dict.fromkeys(model for _, model in ordered))
    if is_matrix(ordered, most_columns):
        columns, rows = len(datasets), len(models)
        place = {key: (models.index(key[1]), datasets.index(key[0])) for key in ordered}
    else:
        columns = min(len(ordered), most_columns)
        rows = math.ceil(len(ordered) / columns)
        place = {key: divmod(at, columns) for at, key in enumerate(ordered)}
    if isinstance(heights, float):
        heights = dict.fromkeys(ordered, heights)
    row_heights = [
        max(heights[key] for key in ordered if place[key][0] == row) for row in range(rows)
    ]
    width = COLUMN_IN if columns == 1 else PAGE_IN
    figure = Figure(
        figsize=(width, sum(row_heights) + 0.42 * rows + spare_in), layout="constrained"
    )
    grid = figure.add_gridspec(rows, columns, height_ratios=row_heights)
    axes: dict[Key, Axes] = {}
    for key in ordered:
        row, column = place[key]
        axes[key] = figure.add_subplot(grid[row, column])
        axes[key].set_title(_title(key, int(_axes_width_in(axes[key]) / 0.05)))
    return figure, axes


def _title(key: Key, limit: int) -> str:
    """Dataset and model within so many characters; a long name of the dataset is cut first."""
    model = printable(key[1], max(limit // 3, limit - len(key[0]) - 3, 8))
    return f"{printable(key[0], max(limit - len(model) - 3, 8))} · {model}"


def _axes_width_in(panel: Axes) -> float:
    """Width that a panel will have, less its tick labels, before the layout is solved."""
    spec = panel.get_subplotspec()
    figure: Any = panel.figure
    assert spec is not None, "panels are made on a grid"
    return float(figure.get_figwidth()) / spec.get_gridspec().ncols - 0.45


def is_matrix(keys: Iterable[Key], most_columns: int = MAX_COLUMNS) -> bool:
    """Whether panels form a matrix of models and datasets, or run on line by line.

    A matrix of which half is empty is none.
    """
    places = set(keys)
    columns, lines = (len({place[at] for place in places}) for at in range(2))
    return columns <= most_columns and 2 * len(places) > columns * lines


def leftmost(axes: Mapping[Key, Axes]) -> list[Axes]:
    """The first panel of each line."""
    first: dict[int, Axes] = {}
    for panel in axes.values():
        row, column = _position(panel)
        if row not in first or column < _position(first[row])[1]:
            first[row] = panel
    return list(first.values())


def lowest(axes: Mapping[Key, Axes]) -> list[Axes]:
    """The panels with none below them."""
    last: dict[int, Axes] = {}
    for panel in axes.values():
        row, column = _position(panel)
        if column not in last or row > _position(last[column])[0]:
            last[column] = panel
    return list(last.values())


def _position(panel: Axes) -> tuple[int, int]:
    spec = panel.get_subplotspec()
    assert spec is not None, "panels are made on a grid"
    return spec.rowspan.start, spec.colspan.start


def legend_above(figure: Figure, handles: Sequence[Any]) -> None:
    """Put one legend for all panels above them, read line by line, as wide as the figure allows."""
    widths = [0.047 * len(str(handle.get_label())) + 0.46 for handle in handles]
    columns = next(
        (
            number
            for number in range(len(handles), 1, -1)
            if sum(max(widths[at::number]) for at in range(number)) <= figure.get_figwidth()
        ),
        1,
    )
    # The panels keep their height: `panels` reserves that of a few lines.
    lines = math.ceil(len(handles) / columns)
    figure.set_figheight(figure.get_figheight() + _LINE_IN * max(lines - _LINES_RESERVED, 0))
    # Matplotlib fills columns; deal the handles out so that lines hold them in order.
    by_line = [handle for column in range(columns) for handle in handles[column::columns]]
    figure.legend(handles=by_line, loc="outside upper center", ncols=columns)


def rank_axis(panel: Axes, ranks: Iterable[int]) -> None:
    """Log-2 axis whose ticks are rank counts that occur, thinned where they would touch."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    present = sorted(set(ranks))
    panel.set_xscale("log", base=2)
    ticks = [rank for rank in present if rank & (rank - 1) == 0] if len(present) > 7 else present
    step = math.ceil(len(ticks) / 8) if ticks else 1
    panel.xaxis.set_major_locator(FixedLocator(ticks[::step] or present))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    margin = 1.25 if len(present) > 1 else 1.6
    panel.set_xlim(present[0] / margin, present[-1] * margin)


def log_axis(panel: Axes, which: str, values: Iterable[float], kind: str) -> None:
    """Log axis that spans the values, in units of time (ticks at 1, 2, 5) or bytes (powers of 2).

    Bytes have the binary units of the tables: one number looks the same everywhere.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    found = [value for value in values if value and value > 0 and math.isfinite(value)]
    low, high = (min(found), max(found)) if found else (1.0, 1.0)
    low, high = low / 1.3, high * 1.3
    axis = panel.xaxis if which == "x" else panel.yaxis
    ticks = _powers_of_two(low, high) if kind == "bytes" else _decimal(low, high)
    (panel.set_xscale if which == "x" else panel.set_yscale)("log")
    axis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value, kind)))
    (panel.set_xlim if which == "x" else panel.set_ylim)(low, high)


def _decimal(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 2.2 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, round(decades / 6))
    return [s * 10.0**e for e in range(first, last + 1, every) for s in steps]


def _powers_of_two(low: float, high: float) -> list[float]:
    """At most about seven ticks, at powers of 2, 4, 32 or 1024."""
    octaves = math.log2(high / low)
    every = next((step for step in (1, 2, 5, 10) if octaves / step <= 7), 10)
    first, last = math.floor(math.log2(low) / every), math.ceil(math.log2(high) / every)
    return [2.0 ** (every * at) for at in range(first, last + 1)]


def ratio_axis(panel: Axes, which: str, values: Iterable[float]) -> None:
    """Log axis of ratios around 1, with bands of 10 and 25 % either way."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    found = [value for value in values if value > 0]
    reach = max([1.3, *(max(value, 1 / value) * 1.08 for value in found)])
    axis = panel.xaxis if which == "x" else panel.yaxis
    (panel.set_xscale if which == "x" else panel.set_yscale)("log", base=2)
    fine = (0.8, 1.0, 1.25) if reach < 1.5 else (0.5, 0.7, 1.0, 1.4, 2.0) if reach < 4 else ()
    ticks = fine or tuple(2.0**power for power in range(-12, 13, 1 if reach < 20 else 3))
    axis.set_major_locator(FixedLocator([t for t in ticks if 1 / reach <= t <= reach]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    (panel.set_xlim if which == "x" else panel.set_ylim)(1 / reach, reach)
    span = panel.axvspan if which == "x" else panel.axhspan
    for share, shade in ((0.25, "#eeeeee"), (0.10, "#d9d9d9")):
        span(1 / (1 + share), 1 + share, color=shade, lw=0, zorder=0.5)


def linear_axis(panel: Axes, kind: str, highest: float) -> None:
    """Linear x axis from 0 with few ticks, in units of time or of bytes."""
    from matplotlib.ticker import FixedLocator, FuncFormatter

    top = highest if highest > 0 else 1.0
    unit = _unit(top, kind)
    step = round_step(top / unit / min(_axes_width_in(panel) / 0.42, 5)) * unit
    count = int(top * 1.05 / step)
    panel.set_xlim(0, top * 1.07)
    panel.xaxis.set_major_locator(FixedLocator([step * at for at in range(count + 1)]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value, kind, unit)))


def share_axis(panel: Axes, which: str, values: Iterable[float], *, wide: float) -> None:
    """Axis of shares, in percent: from 0, or logarithmic where they span a factor of `wide`."""
    found = sorted({float(value) for value in values if value >= 0})
    low, high = (found[0], found[-1]) if found and found[-1] > 0 else (0.0, 1.0)
    axis = panel.xaxis if which == "x" else panel.yaxis
    limits = panel.set_xlim if which == "x" else panel.set_ylim
    if low > 0 and high / low > wide:
        (panel.set_xscale if which == "x" else panel.set_yscale)("log")
        low, high = low / 1.25, high * 1.25
        percent_ticks(axis, [t for t in _decimal(low, high) if low <= t <= high])
        limits(low, high)
        return
    step = round_step(high / 4)
    percent_ticks(axis, [step * at for at in range(int(high * 1.001 / step) + 1)])
    limits(0, high * 1.07)


def percent_ticks(axis: Any, ticks: Iterable[float]) -> None:
    """Ticks at shares of 1, written in percent without the sign, which the label has."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(list(ticks)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}"))


_UNITS = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "rate": ((1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")),
    "USD": ((1.0, "USD"), (1e-2, "ct")),
    "bytes": ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}


def short(value: float, kind: str, unit: float | None = None) -> str:
    """Write a tick: '20 ms', '3 GB'."""
    if value == 0:
        return "0"
    scale = unit if unit is not None else _unit(abs(value), kind)
    name = next(name for size, name in _UNITS[kind] if size == scale)
    number = value / scale
    # Three digits, but 1,000 and not 1e+03 where the unit is given.
    return f"{f'{number:,.0f}' if number >= 999.5 else f'{number:.3g}'} {name}"


def _unit(value: float, kind: str) -> float:
    units = _UNITS[kind]
    # A hair of tolerance, so that 1e-3 computed as 0.00099999 is still a millisecond.
    return next((size for size, _ in units if value * (1 + 1e-9) >= size), units[-1][0])


def round_step(rough: float) -> float:
    """The least of 1, 2, 2.5 or 5 times a power of ten that is no less than `rough`."""
    base = 10.0 ** math.floor(math.log10(rough))
    return next(step * base for step in (1, 2, 2.5, 5, 10) if step * base >= rough * (1 - 1e-9))


def period_noun(frame: Any) -> str:
    """What a period is in a frame with a column `period`, such as "epoch"."""
    nouns = set(frame["period"])
    return str(nouns.pop()) if len(nouns) == 1 else "period"


def _hover_marks(figure: Figure) -> list[Any]:
    """The invisible marks that `hover` made: only an SVG has a use for them."""
    lines = [line for panel in figure.axes for line in panel.lines if line.get_alpha() == 0.0]
    return [line for line in lines if str(line.get_gid()).startswith(_TIP)]


def save(figure: Figure, kind: str) -> bytes:
    """Return the figure as "pdf", "svg" or "png", the same bytes every time.

    Draws on the canvases directly: `savefig` draws twice and solves the layout again.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        engine.execute(figure)
        figure.set_layout_engine("none")
    for mark in _hover_marks(figure):
        mark.set_visible(kind == "svg")
    target = io.BytesIO()
    if kind == "pdf":
        pdf: Any = FigureCanvasPdf(figure)
        pdf.print_pdf(target, metadata={"CreationDate": None})
    elif kind == "svg":
        svg: Any = FigureCanvasSVG(figure)
        svg.print_svg(target, metadata={"Date": None})
        return _with_tips(target.getvalue())
    else:
        figure.set_dpi(PNG_DPI)
        png: Any = FigureCanvasAgg(figure)
        png.print_png(target)
    return target.getvalue()
