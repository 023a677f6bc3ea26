"""`gnnbench validate`: predict what others have published and print every error, none hidden."""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnnbench.published.places import Reason
    from gnnbench.published.rows import PublishedRow
    from gnnbench.published.score import Comparison, Score
    from gnnbench.published.systems import Case
    from gnnbench_simulator.predict import Prediction

NAME = "validate"
HELP = "predict published measurements and print every error; needs no torch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the rows, and what to do with the outcome."""
    parser.add_argument(
        "rows", nargs="*", type=Path, metavar="ROWS.csv", help="default: rows that gnnbench has"
    )
    parser.add_argument(
        "--only", metavar="GLOB", help="rows whose id, system, dataset, source or metric matches"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write validation.csv, validation.json and a picture there",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, progress
    from gnnbench.published.rows import read_files, shipped_rows
    from gnnbench.published.score import score

    rows = read_files(args.rows) if args.rows else shipped_rows()
    if args.only:
        rows = chosen(rows, args.only)
    with progress("validate", len(rows)) as advance:
        comparisons = compare_rows(rows, advance)
    total = score(comparisons)
    document = {"score": total, "rows": [row_document(c) for c in comparisons]}
    if args.out:
        write(args.out, comparisons, document)
    if args.json:
        emit_json(document)
    else:
        show(comparisons, total)
    return 0


def chosen(rows: Sequence[PublishedRow], pattern: str) -> list[PublishedRow]:
    """Rows one of whose names matches, whatever the case. Raises SpecError if none does."""
    from gnnbench.errors import SpecError

    found = [
        row
        for row in rows
        if any(
            fnmatch.fnmatchcase(name.lower(), pattern.lower())
            for name in (row.row_id, row.system, row.dataset, row.source, row.metric)
        )
    ]
    if not found:
        raise SpecError(f"--only {pattern}: matches none of {len(rows)} rows")
    return found


def compare_rows(
    rows: Sequence[PublishedRow], advance: Any = lambda note: None
) -> list[Comparison]:
    """Predict each configuration once and lay it beside its rows, in their order."""
    from gnnbench.published.places import Reason
    from gnnbench.published.score import Comparison
    from gnnbench.published.systems import case_of

    known: dict[tuple[object, ...], Prediction | Reason] = {}
    out = []
    for row in rows:
        case = case_of(row)
        if isinstance(case, Reason):
            out.append(Comparison(row=row, reason=case))
        elif case.method:
            out.append(_counted(row, case))
        else:
            if case.key not in known:
                known[case.key] = predict_case(case)
            out.append(_compared(row, case, known[case.key]))
        advance(row.row_id)
    return out


def predict_case(case: Case) -> Prediction | Reason:
    """Plan as the published software would do it, and simulate on its cluster."""
    from gnnbench import registry
    from gnnbench.approaches.base import Layout
    from gnnbench.approaches.whole_graph.rows import stack_shape
    from gnnbench.cluster import load_cluster
    from gnnbench.errors import GnnbenchError
    from gnnbench.published.places import Reason
    from gnnbench.published.skew import nested, skewed
    from gnnbench.published.software import as_released, concurrent, direct
    from gnnbench.published.wire import wire_bound_s
    from gnnbench_simulator.predict import predict_plan

    cluster, run, graph = load_cluster(case.cluster), case.run, case.profile
    per_host = case.ranks_per_host or cluster.ranks_per_host(run.ranks)
    per_host = min(per_host, run.ranks)
    hosts = -(-run.ranks // per_host)
    if hosts > cluster.host.hosts_max:
        return Reason("cannot be predicted", f"{cluster.name} has no {hosts} hosts")
    approach = registry.approach(run.approach)
    try:
        structure = approach.structure(graph, run)
        if case.software.released:
            method = f"metis-{run.knobs['objective']}"
            structure = skewed(nested(structure, graph, method, per_host))
        layout = Layout(world_size=run.ranks, ranks_per_host=per_host, device="cuda")
        plan = approach.plan(graph, run, structure, layout)
        shape = stack_shape(graph, run, run.knobs.get("order", "min_width"))
        plan = as_released(plan, shape, case.software)
        if case.software.batched:
            cluster = direct(cluster)
        if case.software.released and run.approach == "pipegcn":
            cluster = concurrent(cluster, plan, per_host)
        found = predict_plan(plan, cluster, ranks_per_host=per_host)
        found.notes["wire_bound_s"] = wire_bound_s(plan, cluster, per_host)
        return found
    except GnnbenchError as error:
        return Reason("cannot be predicted", str(error))


def _compared(row: PublishedRow, case: Case, found: Prediction | Reason) -> Comparison:
    from gnnbench.published.metrics import MEMORY, si_value, time_of
    from gnnbench.published.places import Reason
    from gnnbench.published.score import Comparison
    from gnnbench.published.split import used, widened

    if isinstance(found, Reason):
        return Comparison(row=row, reason=found)
    common: dict[str, Any] = {
        "row": row, "published": si_value(row), "used": used(row, case), "cluster": case.cluster,
        "grade": found.grade, "note": _note(row, found),
    }  # fmt: skip
    if row.metric == MEMORY:
        return Comparison(
            **common, predicted=max(float(entry["peak_bytes"]) for entry in found.memory)
        )
    hidden = case.run.approach == "pipegcn" and case.run.ranks > 1
    value = time_of(row.metric, found.epoch_s, found.ledgers, hidden_exchange=hidden)
    if value <= 0:
        return Comparison(row=row, reason=Reason("predicted to be hidden or absent", row.metric))
    scale = value / found.epoch_s
    low, high = widened(value, scale * found.low_s, scale * found.high_s)
    return Comparison(**common, predicted=value, low=low, high=high)


def _note(row: PublishedRow, found: Prediction) -> str:
    """What one should know of a prediction, the weightiest first."""
    from gnnbench.published.metrics import si_value

    notes = []
    bound = found.notes["wire_bound_s"]
    if row.metric == "epoch_time" and si_value(row) < bound:
        notes.append(f"published time is below the {bound:.3g} s that the stated link needs")
    if not all(entry.get("fits", True) for entry in found.memory):
        notes.append("predicted not to fit the device's memory")
    if "-like" in row.hardware:
        notes.append(f"taken for {found.cluster} by the row's words, its hardware is not stated")
    return "; ".join([*notes, found.basis])


def _counted(row: PublishedRow, case: Case) -> Comparison:
    """Vertices of a partition by the profile's halo curve; no time, so no interval."""
    from gnnbench.published.metrics import METIS_BALANCE, si_value
    from gnnbench.published.score import Comparison
    from gnnbench.published.split import used

    point, basis = case.profile.expected_halo(case.run.ranks, case.method)
    if row.metric.startswith("inner"):
        predicted = METIS_BALANCE * case.profile.num_nodes / point.parts
        basis = "an even share, filled up to the tolerance of METIS"
    else:
        predicted = point.halo_per_node * case.profile.num_nodes
        if not row.metric.endswith("_total"):
            predicted *= (point.halo_imbalance or 1.0) / point.parts
    return Comparison(
        row=row, published=si_value(row), predicted=predicted, used=used(row, case),
        grade="published", note=basis,
    )  # fmt: skip


_FIELDS = ("row_id", "source", "location", "system", "dataset", "model", "layers", "hidden")


def row_document(c: Comparison) -> dict[str, Any]:
    """The JSON row."""
    told = {name: getattr(c.row, name) for name in (*_FIELDS, "gpus", "metric")}
    return {
        **told,
        "published": c.published if c.reason is None else None,
        "predicted": c.predicted,
        "low": c.low,
        "high": c.high,
        "error": c.error,
        "in_interval": c.inside,
        "grade": c.grade,
        "used": c.used,
        "cluster": c.cluster,
        "reason": str(c.reason) if c.reason else "",
        "note": c.note,
    }


def write(folder: Path, comparisons: Sequence[Comparison], document: dict[str, Any]) -> None:
    """Write every row as CSV, and everything as JSON."""
    import csv
    import io
    import json

    from gnnbench.commands.output import plain
    from gnnbench.results import write_text

    folder.mkdir(parents=True, exist_ok=True)
    rows = [row_document(c) for c in comparisons]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["row_id"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "validation.csv", out.getvalue())
    write_text(folder / "validation.json", json.dumps(plain(document), indent=1, allow_nan=False))
    picture(folder / "parity.svg", [c for c in comparisons if c.scored and _is_epoch(c)])


def _is_epoch(c: Comparison) -> bool:
    return c.row.metric == "epoch_time"


def picture(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Draw published against predicted epoch times; nothing is drawn of none."""
    import pandas as pd

    from gnnbench_reports.figures import drawing, parity

    path.unlink(missing_ok=True)  # an earlier validation may have had something to draw here
    if not comparisons:
        return
    frame = pd.DataFrame(
        [
            {
                "approach": c.row.system.split("(")[0].strip(),
                "ranks": c.row.ranks,
                "measured_epoch_s": c.published,
                "predicted_epoch_s": c.predicted,
                "predicted_low_s": c.low,
                "predicted_high_s": c.high,
                "repeat_spread": 0.0,
                "error": c.error,
            }
            for c in comparisons
        ]
    )
    with drawing.paper_style():
        path.write_bytes(drawing.save(parity.draw(frame), "svg"))


def show(comparisons: Sequence[Comparison], total: Score) -> None:
    """Print rows, sums by source and system, rankings, and what has no prediction and why."""
    from gnnbench.commands.output import table
    from gnnbench_reports import numbers

    columns = [
        "row", "system", "dataset", "model", "P", "metric", "published", "predicted",
        "90 % interval", "error", "inside", "grade", "used",
    ]  # fmt: skip
    table([_cells(c) for c in comparisons if c.predicted is not None], columns)
    told = [c.row.row_id for c in comparisons if c.note.startswith("published time is below")]
    if told:
        print(f"\nshorter than the stated link can carry their bytes: {', '.join(told)}")
    print("\nrows that were fitted, or are inputs of a profile, are not scores")
    table(
        [
            {
                "source": _short(g.source),
                "system": _short(g.system),
                "metric": g.metric,
                "used": g.used,
                "rows": g.number,
                "median |error|": numbers.percent(g.median_error),
                "largest": numbers.percent(g.largest_error),
                "bias": numbers.percent(g.bias, signed=True),
                "inside": numbers.percent(g.inside),
            }
            for g in total.groups
        ],
        ["source", "system", "metric", "used", "rows", "median |error|", "largest", "bias",
         "inside"],
    )  # fmt: skip
    if total.rankings:
        print("\norder of epoch times within a table, prediction against publication")
        table(
            [
                {"table": _short(r.table, 60, end=True), "of": r.of, "pairs": r.pairs,
                 "right": r.concordant, "tied": r.tied, "tau": f"{r.tau:.2f}"}
                for r in total.rankings
            ],
            ["table", "of", "pairs", "right", "tied", "tau"],
        )  # fmt: skip
    print("\nrows without a prediction")
    table(_by_kind(comparisons), ["rows", "reason", "of which"])
    print(f"\n{total.rows} rows = {total.modelled} modelled + {total.unmodelled} not modelled")
    if total.median_error is not None:
        print(
            f"{total.scored} scored times and sizes: median |error| "
            f"{numbers.percent(total.median_error)}, {numbers.percent(total.inside)} of them in "
            "the 90 % interval"
        )


def _by_kind(comparisons: Sequence[Comparison]) -> list[dict[str, object]]:
    """Reasons by kind, with as many of their details as a line holds; `--json` has them all."""
    from collections import Counter

    kinds = Counter(c.reason.kind for c in comparisons if c.reason)
    rows: list[dict[str, object]] = []
    for kind, count in kinds.most_common():
        details = Counter(
            c.reason.detail for c in comparisons if c.reason and c.reason.kind == kind
        )
        told = ", ".join(f"{detail} ({n})" for detail, n in details.most_common() if detail)
        rows.append({"rows": count, "reason": kind, "of which": _short(told, 90)})
    return rows


def _cells(c: Comparison) -> dict[str, object]:
    from gnnbench.published.metrics import COUNTS, MEMORY
    from gnnbench_reports import numbers

    row = c.row
    if row.metric in COUNTS:
        form: Any = numbers.whole
    else:
        form = numbers.size if row.metric == MEMORY else numbers.seconds
    model = f"{row.model} {row.num_layers}x{row.hidden_width}" if row.model else ""
    predicted = round(c.predicted or 0) if row.metric in COUNTS else c.predicted
    return {
        "row": row.row_id, "system": _short(row.system, 24), "dataset": row.dataset,
        "model": model, "P": row.ranks, "metric": row.metric, "published": form(c.published),
        "predicted": form(predicted),
        "90 % interval": numbers.interval(c.low, c.high) if c.low is not None else "",
        "error": numbers.percent(c.error, signed=True),
        "inside": {True: "yes", False: "no", None: ""}[c.inside],
        "grade": c.grade, "used": c.used,
    }  # fmt: skip


def _short(text: str, width: int = 34, *, end: bool = False) -> str:
    if len(text) <= width:
        return text
    return f"…{text[-width + 1 :]}" if end else f"{text[: width - 1]}…"
