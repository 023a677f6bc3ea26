"""Sections of the page: each block defines its numbers, then shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gnnbench.steps import Phase
from gnnbench_reports import numbers
from gnnbench_reports.blocks import Block, Drawing, Heading, Table, Text, folded
from gnnbench_reports.configurations import PLACE, configurations, place
from gnnbench_reports.environment import environment
from gnnbench_reports.finding import Finding
from gnnbench_reports.labels import spec_name
from gnnbench_reports.parts import EXTRA, HIDDEN
from gnnbench_reports.study import Study
from gnnbench_reports.summary import choices, error_table
from gnnbench_reports.tables import Column, Word
from gnnbench_reports.trained import trained

_FINDING = "finding_"
_MOST_LINES, _MOST_CHOICES, _MOST_CALM = 40, 6, 8

SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("trained", "What was trained", ("trained",)),
    ("scaling", "Scaling", ("scaling", "efficiency", "scaling_points")),
    ("price", "Time against price", ("pareto",)),
    ("phases", "Where the time goes", ("phases", "finding_stages", "parts")),
    (
        "bytes",
        "Bytes moved",
        ("collectives", "finding_traffic", "volumes", "volume", "crossover"),
    ),
    ("bandwidth", "Bandwidth of collectives", ("finding_bandwidth",)),
    ("pipelines", "Pipelining", ("finding_pipelines",)),
    ("caches", "Feature caches", ("finding_caches", "cache_hits")),
    ("disk", "Disk traffic", ("finding_disk_io", "disk_io")),
    ("arrival", "Throughput against arrival rate", ("arrival", "finding_arrival")),
    ("memory", "Memory", ("finding_fits", "fits", "memory", "memory_table")),
    ("order", "Order of approaches", ("finding_order", "order")),
    ("node_order", "Order of vertices", ("finding_node_order",)),
    (
        "quality",
        "Model quality",
        ("finding_quality", "quality", "time_to_metric", "finding_time_to_metric"),
    ),
    (
        "errors",
        "Error of the predictions",
        ("errors", "parity", "residuals", "finding_operations"),
    ),
    ("sensitivity", "Sensitivity of the answer", ("finding_sensitivity", "tornado")),
    ("lost", "Skipped and failed", ("lost",)),
    ("environment", "Machine, versions and constants", ("environment",)),
    ("all", "All configurations", ("configurations",)),
)
"""Anchor, heading, and blocks: names of figures, of findings, or of functions in BLOCKS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of the page."""

    anchor: str
    title: str
    blocks: Sequence[Block]


def sections(
    study: Study,
    drawings: Mapping[str, Drawing],
    found: Mapping[str, Finding],
    out: Path | None = None,
) -> list[Section]:
    """The sections that have something to show; those of `out` link to the records."""
    made = []
    for anchor, heading, names in SECTIONS:
        blocks = [block for name in names for block in _blocks(name, study, drawings, found, out)]
        if blocks:
            made.append(Section(anchor=anchor, title=heading, blocks=blocks))
    return made


def _blocks(
    name: str,
    study: Study,
    drawings: Mapping[str, Drawing],
    found: Mapping[str, Finding],
    out: Path | None,
) -> Sequence[Block]:
    if name in drawings:
        return () if drawings[name].svg is None else (drawings[name],)
    if name.startswith(_FINDING):
        one = found.get(name.removeprefix(_FINDING))
        return () if one is None else _finding(one)
    if name == "configurations":
        return configurations(study, out)
    make = BLOCKS.get(name)
    return () if make is None else make(study)


def title(study: Study) -> str:
    """The suites that were run."""
    specs = [run.spec for run in study.runs] or [record.spec for record in study.predictions]
    suites = sorted({str(spec.get("suite", "")) for spec in specs} - {""})
    return f"gnnbench report: {', '.join(suites) or study.results.folder.name}"


def subtitle(study: Study) -> str:
    """How many datasets, models, approaches, runs and predictions there are."""
    rows = study.rows
    repeats = sum(row.repeats for row in rows)
    counts = [
        (len({row.dataset for row in rows}), "dataset"),
        # A row's model may say what was given, too: the spec has the name alone.
        (len({spec_name(study.spec(row), "model") or row.model for row in rows}), "model"),
        (len({row.label for row in rows}), "approach"),
        (len(study.runs) or repeats, "run"),
        (len(study.predictions) or sum(row.predicted for row in rows), "prediction"),
    ]
    return ", ".join(_plural(number, noun) for number, noun in counts)


def hints(study: Study) -> list[str]:
    """What else the folder holds."""
    shown = {row.cluster for row in study.rows}
    others = [name for name in study.clusters if name not in shown]
    if not others:
        return []
    names = ", ".join(others)
    return [f"The folder also holds predictions for {names}: show one with `--cluster NAME`."]


def _finding(found: Finding) -> Sequence[Block]:
    """The definitions, then the table, folded if it is long; its verdict opens the page."""
    words = {"no": Word("no", "differ")}
    cells = [tuple(words.get(str(cell), cell) for cell in line) for line in found.cells]
    most = _MOST_CALM if found.calm else _MOST_LINES
    return Text(found.meaning), folded(found.columns, cells, "lines", most)


def _errors(study: Study) -> Sequence[Block]:
    lines = error_table(study.rows)
    if not lines:
        return ()
    columns = (
        Column(heading="by"),
        Column(heading="group"),
        Column(heading="n", number=True),
        Column(heading="median error", number=True),
        Column(heading="90th percentile", number=True),
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
    definitions = (
        "The error of a configuration is |predicted / measured time per period - 1|; the table "
        "shows its median and 90th percentile. Bias is the geometric mean of predicted / measured: "
        "above 1 predictions are too slow on average. “Inside 90 %” counts measured times within "
        "their predicted interval: about nine of ten should be. Repeat spread is half the range of "
        "repeats over their median: errors below it are within the noise."
    )
    return Text(definitions), Table(columns=columns, rows=cells)


def _scaling_points(study: Study) -> Sequence[Block]:
    summary = study.summary
    if summary.scaling_points is None:
        return ()
    sentence = (
        "Parallel efficiency is t(1) / (n t(n)): 100 % is perfect scaling. The median difference "
        f"between predicted and measured efficiency is {summary.scaling_points:.0f} percentage "
        f"points (n = {summary.num_scaling})."
    )
    return (Text(sentence),)


def _volumes(study: Study) -> Sequence[Block]:
    rows = [
        (row, volume)
        for row in study.rows
        for volume in row.volumes
        if row.measured and (volume.counted_bytes or volume.planned_bytes)
    ]
    if not rows:
        return ()
    columns = (
        *PLACE,
        Column(heading="step"),
        Column(heading="phase"),
        Column(heading="counted", number=True, meaning="bytes per period, counted from buffers"),
        Column(heading="planned", number=True, meaning="bytes per period, by the plan"),
        Column(heading="equal"),
    )
    differ = Word("differ")
    verdicts = {True: Word("equal", "ok"), False: differ, None: "–"}
    cells = [
        (
            *place(row),
            volume.kind,
            volume.phase,
            numbers.whole(volume.counted_bytes),
            numbers.whole(volume.planned_bytes),
            verdicts[volume.equal],
        )
        for row, volume in rows
    ]
    definitions = (
        "Bytes that all ranks together move per period: sent to other ranks, copied between "
        "memories, read from and written to disk. The runtime counts them from buffers; the plan "
        "that the simulator executes states them. Both are integers and must be equal in every "
        "period. A plan that was estimated from a profile may differ."
    )
    different = [line for line in cells if line[-1] is differ]
    shown = (Heading("Volumes that differ"), Table(columns=columns, rows=different))
    return (
        Text(definitions),
        *(shown if different else ()),
        folded(columns, cells, "volumes", 0),
    )


def _memory(study: Study) -> Sequence[Block]:
    rows = [row for row in study.rows if row.memory.peak_ratio is not None]
    if not rows:
        return ()
    columns = (
        *PLACE,
        Column(heading="measured peak", number=True),
        Column(heading="predicted peak", number=True),
        Column(heading="ratio", number=True),
        Column(heading="measured workload", number=True),
        Column(heading="predicted workload", number=True),
        Column(heading="ratio", number=True),
        Column(heading="measured by"),
        Column(heading="tightest space", meaning="the memory with the least room by prediction"),
        Column(heading="needed", number=True, meaning="predicted, in that memory"),
        Column(heading="limit", number=True, meaning="of that memory, per rank"),
    )
    cells = [
        (
            *place(row),
            numbers.size(row.memory.measured_peak_bytes),
            numbers.size(row.memory.predicted_peak_bytes),
            numbers.factor(row.memory.peak_ratio),
            numbers.size(row.memory.measured_workload_bytes),
            numbers.size(row.memory.predicted_workload_bytes),
            numbers.factor(row.memory.workload_ratio),
            row.memory.source,
            row.memory.space,
            numbers.size(row.memory.predicted_needed_bytes),
            numbers.size(row.memory.limit_bytes),
        )
        for row in rows
    ]
    summary = study.summary
    definitions = (
        "Peak memory during training of the rank with the highest peak: the resident set on a CPU, "
        "allocated device memory on a GPU. The workload is the peak without the baseline, which is "
        "the process before it holds data and the same for every run. "
        f"Median error: {numbers.percent(summary.memory_error)} of the peak, "
        f"{numbers.percent(summary.workload_error)} of the workload."
    )
    return Text(definitions), folded(columns, cells, "configurations", 0)


def _order(study: Study) -> Sequence[Block]:
    picks = choices(study.rows)
    if not picks:
        return ()
    columns = (
        Column(heading="dataset"),
        Column(heading="model"),
        Column(heading="ranks", number=True),
        Column(heading="measured, fastest first"),
        Column(heading="predicted, fastest first"),
        Column(heading="clear pairs correct", number=True),
        Column(heading="regret", number=True),
    )
    cells = [
        (
            pick.dataset,
            pick.model,
            pick.ranks,
            pick.measured_order,
            pick.predicted_order,
            f"{pick.right_pairs} of {pick.decisive_pairs}",
            numbers.percent(pick.regret),
        )
        for pick in picks
    ]
    definitions = (
        "Approaches on the same dataset, model and rank count. “a = b”: both run one program. "
        "“a ≈ b”: their measured times differ by less than the noise, or their predicted times by "
        "less than a quarter of the wider interval. Clear pairs are those whose measured medians "
        "differ by more than 15 %."
    )
    return Text(definitions), folded(columns, cells, "comparisons", _MOST_CHOICES)


def _parts(study: Study) -> Sequence[Block]:
    """Measured beside predicted seconds of each part, where both are known."""
    rows = [row for row in study.rows if row.phases_measured]
    if not rows:
        return ()
    known = {part for row in rows for part in (*row.phases_measured, *row.phases_predicted)}
    order = [phase.value for phase in Phase] + [*EXTRA, HIDDEN]
    parts = sorted(known, key=lambda part: order.index(part) if part in order else len(order))
    columns = (*PLACE, Column(heading="side"), *(Column(heading=p, number=True) for p in parts))
    cells = [
        (*place(row), side, *(numbers.seconds(table.get(part)) for part in parts))
        for row in rows
        for side, table in (("measured", row.phases_measured), ("predicted", row.phases_predicted))
        if table
    ]
    return (folded(columns, cells, "lines", 0),)


def _lost(study: Study) -> Sequence[Block]:
    """What did not run or ended early; lines that differ by dataset and model alone are one."""
    rows = [row for row in study.rows if row.status not in ("ok", "predicted") or row.reason]
    if not rows:
        return ()
    places: dict[tuple[object, ...], dict[str, dict[str, None]]] = {}
    for row in rows:
        key = row.status, row.label, row.ranks, row.failed_rank, row.failed_phase, row.reason
        places.setdefault(key, {}).setdefault(row.dataset, {})[row.model] = None
    columns: tuple[Column, ...] = (
        Column(heading="status", word=True),
        Column(heading="approach"),
        Column(heading="ranks", number=True),
        Column(heading="datasets and models"),
        Column(heading="failed rank", number=True),
        Column(heading="phase"),
        Column(heading="reason"),
    )
    cells: list[tuple[object, ...]] = [
        (Word(str(status)), label, ranks, _places(found), rank, phase, reason)
        for (status, label, ranks, rank, phase, reason), found in places.items()
    ]
    if not any(row.failed_rank is not None or row.failed_phase for row in rows):
        columns = (*columns[:4], columns[-1])
        cells = [(*line[:4], line[-1]) for line in cells]
    definitions = (
        "Skipped: the approach or machine cannot do this run, which was known before it started. "
        "Failed: the run started and ended early. Diverged: its loss or its parameters are not "
        "finite. None of them is part of any number above."
    )
    return Text(definitions), folded(columns, cells, "lines", _MOST_LINES)


def _places(found: Mapping[str, Mapping[str, None]]) -> str:
    """Datasets with their models, such as "cora: gcn, sage; arxiv: gcn"."""
    models = {tuple(of) for of in found.values()}
    if len(models) == 1:  # the same models on each dataset
        return f"{', '.join(found)}: {', '.join(models.pop())}"
    return "; ".join(f"{dataset}: {', '.join(of)}" for dataset, of in found.items())


def _plural(number: int, noun: str) -> str:
    suffix = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{number} {noun}{suffix}"


BLOCKS: dict[str, Callable[[Study], Sequence[Block]]] = {
    "errors": _errors,
    "scaling_points": _scaling_points,
    "volumes": _volumes,
    "memory_table": _memory,
    "order": _order,
    "lost": _lost,
    "environment": environment,
    "trained": trained,
    "parts": _parts,
}
