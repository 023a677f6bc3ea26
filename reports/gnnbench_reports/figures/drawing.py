"""What figures share: the style sheet, small multiples, colours, axes in plain words, saving."""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_IN, PAGE_IN = 3.3, 6.9
MAX_COLUMNS = 4
PNG_DPI = 200
STYLE = Path(__file__).parents[1] / "styles" / "gnnbench.mplstyle"

# Okabe and Ito's palette, told apart under the common colour deficiencies, and a few darker tones;
# black is for `single`, and the marker tells what a colour cannot.
_OWN_LOOK = {
    "single": ("#222222", "s"),
    "partition": ("#0072B2", "o"),
    "bns": ("#56B4E9", "v"),
    "pipegcn": ("#009E73", "D"),
    "sampled": ("#D55E00", "^"),
    "mixture": ("#CC79A7", "P"),
    "mixed-accelerators": ("#882255", "X"),
    "cagnet-1d": ("#E69F00", "<"),
    "cagnet-1.5d": ("#8C6D31", ">"),
    "cagnet-2d": ("#6A3D9A", "h"),
}
_OTHER_LOOKS = (
    ("#5F5F5F", "d"),
    ("#117733", "p"),
    ("#B2182B", "*"),
    ("#3B5BA5", "H"),
    ("#A6761D", "8"),
    ("#66A61E", "D"),
    ("#1B9E9E", "v"),
    ("#E7298A", "P"),
)
# Paul Tol's bright scheme; greys for what happens outside the training step.
PHASE_COLOURS = {
    "load": "#BBBBBB",
    "sample": "#228833",
    "fetch": "#CCBB44",
    "forward": "#4477AA",
    "backward": "#66CCEE",
    "sync": "#EE6677",
    "update": "#AA3377",
    "evaluate": "#DDDDDD",
}


@dataclass(frozen=True, slots=True)
class Look:
    """How one series is drawn in every figure."""

    colour: str
    marker: str


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """Give each approach its colour and marker; known approaches keep theirs everywhere."""
    found: dict[str, Look] = {}
    free = 0
    names = set(labels)
    for label in [*(n for n in _OWN_LOOK if n in names), *sorted(names - set(_OWN_LOOK))]:
        own = _OWN_LOOK.get(label)
        if own is None:
            own = _OTHER_LOOKS[free % len(_OTHER_LOOKS)]
            free += 1
        found[label] = Look(*own)
    return found


@contextmanager
def paper_style() -> Iterator[None]:
    """Draw and save under the style sheet; a character that the font lacks is drawn as a box."""
    from matplotlib import rc_context

    with warnings.catch_warnings(), rc_context(fname=str(STYLE)):
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")
        yield


def printable(text: str, limit: int = 40) -> str:
    """Return a name fit for drawing: no control characters, not endless.

    A label that is too long gives up the names of its settings first, then the end of the
    approach's own name: the values are what tells it from its like.
    """
    clean = "".join(c if c.isprintable() else "?" for c in text)
    if len(clean) <= limit:
        return clean
    name, bracket, settings = clean.rstrip("]").partition(" [")
    if bracket:
        values = ", ".join(one.rpartition("=")[2] for one in settings.split(", "))
        spare = limit - len(values) - 3
        if spare >= 4:
            name = name if len(name) <= spare else f"{name[: spare - 1]}…"
            return f"{name} [{values}]"
    return clean[: limit - 1] + "…"


Key = tuple[str, str]


def panels(
    keys: Iterable[Key],
    *,
    heights: Mapping[Key, float] | float,
    spare_in: float = 0.62,
    most_columns: int = MAX_COLUMNS,
) -> tuple[Figure, dict[Key, Axes]]:
    """Make one panel per (graph, model): models down, graphs across, where `is_matrix` says so.

    `heights` is the height of a panel's axes in inches; `spare_in` what titles and legend need.
    With more graphs than `most_columns`, panels run on line by line.
    """
    from matplotlib.figure import Figure

    ordered = list(dict.fromkeys(keys))
    # Graphs with most models stand left, so that a line that lacks panels lacks them at its right.
    panels_of = Counter(graph for graph, _ in ordered)
    graphs = sorted(panels_of, key=lambda graph: -panels_of[graph])
    models = list(dict.fromkeys(model for _, model in ordered))
    if is_matrix(ordered, most_columns):
        columns, rows = len(graphs), len(models)
        place = {key: (models.index(key[1]), graphs.index(key[0])) for key in ordered}
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
    """Graph and model within so many characters; the graph's name gives way first."""
    model = printable(key[1], max(limit // 3, 8))
    return f"{printable(key[0], max(limit - len(model) - 3, 8))} · {model}"


def _axes_width_in(panel: Axes) -> float:
    """Width that a panel will have, less its tick labels, before the layout is solved."""
    spec = panel.get_subplotspec()
    figure: Any = panel.figure
    assert spec is not None, "panels are made on a grid"
    return float(figure.get_figwidth()) / spec.get_gridspec().ncols - 0.45


def is_matrix(keys: Iterable[Key], most_columns: int = MAX_COLUMNS) -> bool:
    """Tell whether panels stand in a matrix of models and graphs, or run on line by line."""
    return len({graph for graph, _ in keys}) <= most_columns


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
    longest = max((len(str(handle.get_label())) for handle in handles), default=1)
    fitting = int(figure.get_figwidth() / (0.047 * longest + 0.5))
    columns = max(1, min(len(handles), fitting))
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
    """Log-10 axis that spans the values, ticked at 1, 2 and 5, in units of time or of bytes."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    found = [value for value in values if value and value > 0 and math.isfinite(value)]
    low, high = (min(found), max(found)) if found else (1.0, 1.0)
    low, high = low / 1.3, high * 1.3
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 2.2 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, round(decades / 6))
    ticks = [s * 10.0**e for e in range(first, last + 1, every) for s in steps]
    axis = panel.xaxis if which == "x" else panel.yaxis
    (panel.set_xscale if which == "x" else panel.set_yscale)("log")
    axis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value, kind)))
    (panel.set_xlim if which == "x" else panel.set_ylim)(low, high)


def linear_axis(panel: Axes, kind: str, highest: float) -> None:
    """Linear x axis from 0 with few ticks, in units of time or of bytes."""
    from matplotlib.ticker import FixedLocator, FuncFormatter

    top = highest if highest > 0 else 1.0
    unit = _unit(top, kind)
    step = _round_step(top / unit / min(_axes_width_in(panel) / 0.42, 5)) * unit
    count = int(top * 1.05 / step)
    panel.set_xlim(0, top * 1.07)
    panel.xaxis.set_major_locator(FixedLocator([step * at for at in range(count + 1)]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value, kind, unit)))


_UNITS = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "bytes": ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "memory": ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
}


def short(value: float, kind: str, unit: float | None = None) -> str:
    """Write a tick: '20 ms', '3 GB'."""
    if value == 0:
        return "0"
    scale = unit if unit is not None else _unit(abs(value), kind)
    name = next(name for size, name in _UNITS[kind] if size == scale)
    return f"{value / scale:.3g} {name}"


def _unit(value: float, kind: str) -> float:
    units = _UNITS[kind]
    # A hair of tolerance, so that 1e-3 computed as 0.00099999 is still a millisecond.
    return next((size for size, _ in units if value * (1 + 1e-9) >= size), units[-1][0])


def _round_step(rough: float) -> float:
    base = 10.0 ** math.floor(math.log10(rough))
    return next(step * base for step in (1, 2, 2.5, 5, 10) if step * base >= rough * (1 - 1e-9))


def save(figure: Figure, kind: str) -> bytes:
    """Return the figure as "pdf", "svg" or "png", the same bytes every time.

    Canvases are asked directly: `savefig` draws everything twice, and would solve the layout anew.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    target = io.BytesIO()
    if kind == "pdf":
        pdf: Any = FigureCanvasPdf(figure)
        pdf.print_pdf(target, metadata={"CreationDate": None})
    elif kind == "svg":
        svg: Any = FigureCanvasSVG(figure)
        svg.print_svg(target, metadata={"Date": None})
    else:
        figure.set_dpi(PNG_DPI)
        png: Any = FigureCanvasAgg(figure)
        png.print_png(target)
    return target.getvalue()
