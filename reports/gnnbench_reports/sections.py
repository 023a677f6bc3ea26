"""What the page says besides figures: each block explains its numbers, then prints them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gnnbench_reports import numbers
from gnnbench_reports.compare import Comparison
from gnnbench_reports.environment import environment
from gnnbench_reports.finding import Finding
from gnnbench_reports.markup import Column, Html, element, joined, table, word
from gnnbench_reports.study import Study
from gnnbench_reports.summary import choices, error_table

_FINDING = "finding_"
_MOST_LINES = 40

# Anchor, heading, and blocks: names of figures or of functions in BLOCKS.
SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("errors", "How good the predictions are", ("errors", "parity")),
    ("scaling", "Scaling", ("scaling", "scaling_points")),
    ("phases", "Where the time goes", ("phases",)),
    ("bytes", "Bytes sent", ("collectives", "volumes", "volume", "crossover")),
    ("bandwidth", "Bandwidth", ("finding_bandwidth",)),
    ("pipelines", "Pipelining", ("finding_pipelines",)),
    ("memory", "Memory", ("memory", "memory_table")),
    ("order", "Which approach is fastest", ("finding_order", "order")),
    ("accuracy", "Accuracy", ("finding_accuracy", "accuracy")),
    ("lost", "Skipped and failed", ("lost",)),
    ("environment", "Where this comes from", ("environment",)),
    ("all", "Every configuration", ("configurations",)),
)


def title(study: Study) -> str:
    """Name the suites that were run."""
    suites = sorted({str(run.spec.get("suite", "")) for run in study.runs} - {""})
    return f"gnnbench report: {', '.join(suites) or study.results.folder.name}"


def subtitle(study: Study) -> str:
    """Say how much was looked at."""
    rows = study.rows
    return (
        ", ".join(
            _plural(len({getattr(row, key) for row in rows}), noun)
            for key, noun in (("graph", "graph"), ("model", "model"), ("label", "approach"))
        )
        + f", {_plural(len(study.runs), 'run')}, {_plural(len(study.predictions), 'prediction')}"
    )


def next_step(study: Study) -> Html:
    """On an incomplete folder, the commands that complete it."""
    if study.rows:
        others = [name for name in study.clusters if name != study.cluster]
        if not others:
            return Html("")
        told = f"Predictions for other clusters are here too: {', '.join(others)}. "
        return element("p", told, "Show one with ", element("code", "--cluster NAME"), ".")
    return joined(
        [
            element("p", "Fill it with one or both of:"),
            element(
                "ul",
                element("li", element("code", "gnnbench run demo --results DIR")),
                element("li", element("code", "gnnbench predict demo --results DIR")),
            ),
        ]
    )


def block(name: str, study: Study, found: Mapping[str, Finding]) -> Html | None:
    """Return a block of the page, or None when there is nothing to say."""
    if name.startswith(_FINDING):
        one = found.get(name.removeprefix(_FINDING))
        return _finding(one) if one is not None else None
    make = BLOCKS.get(name)
    return make(study) if make is not None else None


def _finding(found: Finding) -> Html:
    """What the numbers mean, then the table, folded if it is long; its verdict opens the page."""
    words = {"no": word("differ", "no")}
    cells = [tuple(words.get(str(cell), cell) for cell in line) for line in found.cells]
    lines = table(found.columns, cells)
    return joined(
        [
            element("p", found.meaning),
            lines if len(cells) <= _MOST_LINES else _folded(f"All {len(cells)} lines", lines),
        ]
    )


def _errors(study: Study) -> Html | None:
    lines = error_table(study.rows)
    if not lines:
        return None
    columns = (
        Column(heading="by"),
        Column(heading="group"),
        Column(heading="n", number=True),
        Column(heading="median error", number=True),
        Column(heading="p90", number=True),
        Column(heading="bias", number=True),
        Column(heading="inside 90 %", number=True),
        Column(heading="memory error", number=True),
        Column(heading="repeat spread", number=True),
    )
    cells = [
        (
            line.by,
            line.group,
            line.configurations,
            numbers.percent(line.median_error, line.repeat_spread),
            numbers.percent(line.p90_error, line.repeat_spread),
            numbers.factor(line.bias),
            f"{line.inside_interval} of {line.intervals}",
            numbers.percent(line.memory_error),
            "–" if line.repeat_spread is None else f"±{numbers.percent(line.repeat_spread, 0.001)}",
        )
        for line in lines
    ]
    return joined(
        [
            element(
                "p",
                "The error of a configuration is predicted over measured epoch time, minus one; "
                "the table gives the median and the 90th percentile of its size. Bias is the "
                "geometric mean of the ratio: above 1 predictions are too slow on the whole. "
                "“Inside 90 %” counts measured times within their prediction's interval: about "
                "nine of ten should be. Repeat spread is half the range of repeats of one run: "
                "an error below it cannot be told from noise.",
            ),
            table(columns, cells),
        ]
    )


def _scaling_points(study: Study) -> Html | None:
    summary = study.summary
    if summary.scaling_points is None:
        return None
    return element(
        "p",
        "Efficiency is the one-rank time divided by ranks times the time on them: 100 % is perfect "
        "scaling. Predicted and measured efficiency differ by "
        f"{summary.scaling_points:.0f} percentage points in the median of "
        f"{summary.num_scaling} configurations.",
    )


def _volumes(study: Study) -> Html | None:
    rows = [
        (row, volume)
        for row in study.rows
        for volume in row.volumes
        if row.measured and (volume.measured_bytes or volume.predicted_bytes)
    ]
    if not rows:
        return None
    columns = (
        *_place_columns(),
        Column(heading="collective"),
        Column(heading="phase"),
        Column(heading="counted", number=True),
        Column(heading="planned", number=True),
        Column(heading="verdict"),
    )
    verdicts = {True: word("ok", "equal"), False: word("differ"), None: Html("–")}
    cells = [
        (
            *_place(row),
            volume.kind,
            volume.phase,
            numbers.whole(volume.measured_bytes),
            numbers.whole(volume.predicted_bytes),
            verdicts[volume.equal],
        )
        for row, volume in rows
    ]
    intro = element(
        "p",
        "Bytes that all ranks together send to other ranks in one epoch: counted by the runtime, "
        "and written in the plan that the simulator executes. Both are whole numbers and must be "
        "the same in every epoch that both cover; a plan estimated from a profile may differ.",
    )
    different = [line for line in cells if line[-1] is verdicts[False]]
    shown = [element("h3", "Those that differ"), table(columns, different)] if different else []
    return joined([intro, *shown, _folded(f"All {len(cells)} volumes", table(columns, cells))])


def _memory(study: Study) -> Html | None:
    rows = [row for row in study.rows if row.memory.peak_ratio is not None]
    if not rows:
        return None
    columns = (
        *_place_columns(),
        Column(heading="measured peak", number=True),
        Column(heading="predicted peak", number=True),
        Column(heading="ratio", number=True),
        Column(heading="measured workload", number=True),
        Column(heading="predicted workload", number=True),
        Column(heading="ratio", number=True),
        Column(heading="source"),
    )
    cells = [
        (
            *_place(row),
            numbers.size(row.memory.measured_peak_bytes),
            numbers.size(row.memory.predicted_peak_bytes),
            numbers.factor(row.memory.peak_ratio),
            numbers.size(row.memory.measured_workload_bytes),
            numbers.size(row.memory.predicted_workload_bytes),
            numbers.factor(row.memory.workload_ratio),
            row.memory.source,
        )
        for row in rows
    ]
    summary = study.summary
    intro = element(
        "p",
        "The peak is what must fit; the workload is the peak without the process's own baseline, "
        "and the harder test of the prediction, because the baseline is the same for every run. "
        f"Median error: {numbers.percent(summary.memory_error)} of the peak, "
        f"{numbers.percent(summary.workload_error)} of the workload.",
    )
    return joined([intro, _folded(f"All {len(cells)} configurations", table(columns, cells))])


def _order(study: Study) -> Html | None:
    picks = choices(study.rows)
    if not picks:
        return None
    columns = (
        Column(heading="graph"),
        Column(heading="model"),
        Column(heading="ranks", number=True),
        Column(heading="fastest first, measured"),
        Column(heading="fastest first, predicted"),
        Column(heading="clear pairs right", number=True),
        Column(heading="regret", number=True),
    )
    cells = [
        (
            pick.graph,
            pick.model,
            pick.ranks,
            " < ".join(pick.measured_order),
            " < ".join(pick.predicted_order),
            f"{pick.right_pairs} of {pick.decisive_pairs}",
            numbers.percent(pick.regret),
        )
        for pick in picks
    ]
    intro = element(
        "p",
        "Approaches on the same graph, model and rank count, fastest first. Clear pairs are those "
        "whose measured medians differ by more than 15 %.",
    )
    lines = table(columns, cells)
    return joined([intro, lines if len(cells) <= 6 else _folded(f"All {len(cells)}", lines)])


def _lost(study: Study) -> Html | None:
    rows = [row for row in study.rows if row.status not in ("ok", "predicted") or row.reason]
    if not rows:
        return None
    columns = (
        Column(heading="status", word=True),
        *_place_columns(),
        Column(heading="rank", number=True),
        Column(heading="phase"),
        Column(heading="reason"),
    )
    cells = [
        (word(row.status), *_place(row), row.failed_rank, row.failed_phase, row.reason)
        for row in rows
    ]
    intro = element(
        "p",
        "Skipped: the approach cannot do this, and says why, before anything starts. Failed: the "
        "run began and ended early. Neither enters any number above.",
    )
    return joined([intro, table(columns, cells)])


def _configurations(study: Study) -> Html | None:
    if not study.rows:
        return None
    columns = (
        Column(heading="status", word=True),
        *_place_columns(),
        Column(heading="repeats", number=True, meaning="finished runs pooled"),
        Column(heading="measured", number=True, meaning="median seconds per epoch"),
        Column(heading="±", number=True, meaning="half the range of the repeats"),
        Column(heading="predicted", number=True),
        Column(heading="90 % interval", number=True),
        Column(heading="grade"),
        Column(heading="error", number=True, meaning="predicted / measured - 1"),
        Column(heading="inside"),
        Column(heading="bytes"),
        Column(heading="test accuracy", number=True, meaning="mean ± deviation over repeats"),
    )
    intro = element(
        "p",
        "Times are per epoch: medians over epochs after warm-up, then over repeats, printed with "
        "the digits that their spread supports. Bytes: whether every counted volume equals the "
        "planned one.",
    )
    return joined([intro, table(columns, [_configuration(row) for row in study.rows])])


def _configuration(row: Comparison) -> tuple[object, ...]:
    test = row.accuracy.get("test", {})
    inside = {True: "yes", False: word("differ", "no"), None: "–"}[row.inside_interval]
    same = {True: "equal", False: word("differ"), None: "–"}[row.bytes_equal]
    spread = row.repeat_spread
    return (
        word(row.status),
        *_place(row),
        row.repeats or "–",
        numbers.seconds(row.measured_epoch_s, row.uncertainty),
        "–" if spread is None else numbers.percent(spread, 0.001),
        predicted_time(row),
        numbers.interval(row.predicted_low_s, row.predicted_high_s),
        row.grade,
        numbers.percent(row.error, row.uncertainty, signed=True),
        inside,
        same,
        numbers.accuracy(test.get("mean"), test.get("std")),
    )


def predicted_time(row: Comparison) -> str:
    """Predicted seconds with the digits that the interval supports."""
    if row.predicted_epoch_s is None:
        return "–"
    spread = None
    if row.predicted_low_s is not None and row.predicted_high_s is not None:
        spread = (row.predicted_high_s - row.predicted_low_s) / 4 / row.predicted_epoch_s
    return numbers.seconds(row.predicted_epoch_s, spread)


def _place_columns() -> tuple[Column, ...]:
    return (
        Column(heading="graph", word=True),
        Column(heading="model", word=True),
        Column(heading="approach"),
        Column(heading="ranks", number=True),
    )


def _place(row: Comparison) -> tuple[object, ...]:
    return row.graph, row.model, row.label, row.ranks


def _folded(summary: str, content: Html) -> Html:
    return element("details", element("summary", summary), content)


def _plural(number: int, noun: str) -> str:
    suffix = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{number} {noun}{suffix}"


BLOCKS: dict[str, Callable[[Study], Html | None]] = {
    "errors": _errors,
    "scaling_points": _scaling_points,
    "volumes": _volumes,
    "memory_table": _memory,
    "order": _order,
    "lost": _lost,
    "environment": environment,
    "configurations": _configurations,
}
