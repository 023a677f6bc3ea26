"""The comparison of a results folder as Python sees it: rows, the answer, a table, figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnnbench.atomic import write_bytes
from gnnbench.errors import SpecError, UnknownName, Unsupported
from gnnbench.results import Results
from gnnbench.spreadsheet import guarded_frame
from gnnbench_reports.comparison import Comparison
from gnnbench_reports.figures import NAMES, caption, drawing, figure_module
from gnnbench_reports.opening import read_study

if TYPE_CHECKING:
    from gnnbench_reports.study import Study

_COLUMNS = (
    "dataset",
    "model",
    "approach",
    "ranks",
    "cluster",
    "status",
    "measured_period_s",
    "repeat_spread",
    "predicted_period_s",
    "predicted_low_s",
    "predicted_high_s",
    "error",
    "inside_interval",
    "counted_bytes",
    "planned_bytes",
    "bytes_equal",
    "test_metric",
    "grade",
    "reason",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure of the report; a notebook displays it as SVG.

    Attributes:
        frame: the numbers that are drawn.
        caption: what is drawn, and how to read it.
        svg: the drawing.
    """

    name: str
    title: str
    caption: str
    frame: Any
    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> Path:
        """Write the drawing as PDF, SVG or PNG, or its numbers as CSV, as the suffix says.

        Raises:
            SpecError: the suffix is another one.
        """
        path = Path(path)
        kind = path.suffix.removeprefix(".").lower()
        if kind == "csv":
            content = guarded_frame(self.frame).to_csv(index=False).encode()
        elif kind in _DRAWN:
            with drawing.paper_style():
                content = drawing.save(figure_module(self.name).draw(self.frame), kind)
        else:
            allowed = ".csv, .pdf, .png, .svg"
            raise SpecError(f"{path}: found suffix {path.suffix!r}, allowed: {allowed}")
        write_bytes(path, content)
        return path


_DRAWN = ("pdf", "svg", "png")


class Compared(list[Comparison]):
    """The rows of a results folder, one per configuration, and what a report shows of them.

    Attributes:
        study: what the rows were read from.
    """

    def __init__(self, study: Study) -> None:
        super().__init__(study.rows)
        self.study = study

    @property
    def answer(self) -> str:
        """The fastest approach per dataset and model, how far it scales, and what limits it."""
        from gnnbench_reports.answer import opening

        return "\n".join(opening(self.study))

    @property
    def frame(self) -> Any:
        """The rows as a DataFrame: seconds and bytes per period, errors relative.

        `test_metric` is the mean of the task's metric on the test split. What is not known is None
        or NaN.
        """
        import pandas as pd

        return pd.DataFrame([_flat(row) for row in self], columns=list(_COLUMNS))

    def figure(self, name: str) -> Figure:
        """Return a figure of the report, such as "scaling" or "volume".

        Raises:
            UnknownName: no figure has this name; the message lists those that there are.
            Unsupported: the folder holds nothing that this figure draws.
        """
        if name not in NAMES:
            raise UnknownName("figure", name, NAMES)
        module = figure_module(name)
        frame = module.data(self.study)
        if len(frame) == 0:
            where = self.study.results.folder
            raise Unsupported(f"figure {name}: {where} has no numbers to draw in it")
        with drawing.paper_style():
            svg = drawing.save(module.draw(frame), "svg").decode()
        return Figure(
            name=name, title=module.TITLE, caption=caption(module, frame), frame=frame, svg=svg
        )


def compared(results: Results, cluster: str | None = None) -> Compared:
    """Read and compare a results folder; see `opening.read_study` for `cluster` and errors."""
    return Compared(read_study(results, cluster))


def _flat(row: Comparison) -> dict[str, Any]:
    own = {"approach": row.label, "test_metric": row.test_metric.get("mean")}
    return {name: own[name] if name in own else getattr(row, name) for name in _COLUMNS}
