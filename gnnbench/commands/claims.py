"""`gnnbench claims`: test the claims of papers by runs on this machine and by predictions."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from gnnbench.commands import options

if TYPE_CHECKING:
    from gnnbench_reports.claims.judging import Judgement
    from gnnbench_reports.claims.reading import Paper
    from gnnbench_reports.claims.rendering import Judged
    from gnnbench_reports.study import Study

NAME = "claims"
HELP = "test the claims of papers: measured here, simulated at their scale, with a verdict each"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paper", metavar="PAPER", nargs="?", help="one paper of the catalogue; default: all"
    )
    parser.add_argument(
        "--results",
        type=options.output_folder,
        metavar="DIR",
        default=Path("claims"),
        help="where runs, predictions and the page are kept; finished runs are not repeated "
        "(default: claims)",
    )
    parser.add_argument(
        "--repeats",
        type=options.repeats,
        metavar="N",
        help="number of repeats of each configuration (default: the suite's)",
    )
    parser.add_argument(
        "--no-run",
        action="store_true",
        help="judge by what DIR holds: nothing is trained and nothing predicted",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.atomic import write_text
    from gnnbench.commands.output import emit_json, text
    from gnnbench_reports.claims import rendering
    from gnnbench_reports.claims.reading import load_paper, papers

    names = [args.paper] if args.paper else papers()
    judged = [_judged(load_paper(name), args) for name in names]
    page = args.results / "claims.html"
    args.results.mkdir(parents=True, exist_ok=True)
    write_text(page, rendering.html(judged))
    write_text(page.with_suffix(".md"), rendering.markdown(judged))
    if args.json:
        emit_json(
            {
                "summary": rendering.summary(judged),
                "page": page,
                "papers": list(map(_plain, judged)),
            }
        )
        return 0
    text(rendering.summary(judged))
    for one in judged:
        _print(one)
    print()
    text(f"wrote {page} and {page.with_suffix('.md').name}")
    return 0


def _judged(paper: Paper, args: argparse.Namespace) -> Judged:
    from gnnbench_reports.against import machine
    from gnnbench_reports.claims.judging import judge
    from gnnbench_reports.claims.rendering import Judged

    folder = args.results / paper.name
    if not args.no_run:
        _train(paper, folder / "measured", args)
        _predict(paper, folder / "simulated")
    measured, simulated = (_study(folder / side) for side in ("measured", "simulated"))
    repeats = f" --repeats {args.repeats}" if args.repeats else ""
    commands = [f"gnnbench claims {paper.name}{repeats}"]
    return Judged(
        paper=paper,
        judgements=judge(paper, measured, simulated),
        commands=commands,
        machine="" if measured is None else machine(measured),
    )


def _train(paper: Paper, folder: Path, args: argparse.Namespace) -> None:
    from gnnbench.commands.output import name_passed_over, progress, status_line
    from gnnbench.commands.run import detail
    from gnnbench.data.source import data_roots
    from gnnbench.results import Results
    from gnnbench.suites import find_suite
    from gnnbench_runtime.session import run_all

    suite, results = find_suite(paper.suite), Results(folder)
    runs = suite.chosen(repeats=args.repeats)
    with progress(paper.name, len(runs)) as advance:
        for record, kept in run_all(
            runs,
            results,
            data_roots(None, suite.folder),
            device="cpu",
            watch=lambda run, what: advance.under_way(f"{run.run_id} {what}"),
        ):
            if record.status not in ("ok", "skipped") and not args.json:
                status_line(record.status, record.run_id, detail(record))
            advance(f"{record.run_id} {record.status}", kept=kept)
    name_passed_over(results)


def _predict(paper: Paper, folder: Path) -> None:
    """Predict the suite at the paper's scale for each cluster."""
    from gnnbench.cluster import load_cluster
    from gnnbench.commands.output import progress
    from gnnbench.data.source import data_roots
    from gnnbench.results import Results
    from gnnbench.suites import find_suite
    from gnnbench_simulator.session import predict_runs

    if not paper.simulated:
        return
    suite, results = find_suite(paper.simulated), Results(folder)
    runs = list(suite.configurations())
    with progress(f"{paper.name}, simulated", len(runs) * len(paper.clusters)) as advance:
        for name in paper.clusters:
            for record, _ in predict_runs(
                runs, load_cluster(name), data_roots(None, suite.folder), results
            ):
                advance(record.config_id)


def _study(folder: Path) -> Study | None:
    """The results of a folder; None where it holds none."""
    from gnnbench.results import Results
    from gnnbench_reports.opening import read_study

    if not any(folder.glob("*/*/*.json")) and not (folder / "comparison.csv").is_file():
        return None
    return read_study(Results(folder, create=False))


def _print(one: Judged) -> None:
    from gnnbench.commands.output import heading, table, text
    from gnnbench_reports.claims.judging import bound, written

    heading(f"{one.paper.title} ({one.paper.reference})")
    for judgement in one.judgements:
        claim = judgement.claim
        text(f"{claim.id} {judgement.verdict}: {claim.sentence}", hanging="   ")
        rows: list[dict[str, object]] = [
            {
                "side": outcome.test.side,
                "compared": outcome.test.says,
                "found": written(outcome),
                "claimed": bound(outcome.test),
                "holds": outcome.word,
            }
            for outcome in judgement.outcomes
        ]
        if rows:
            table(rows, list(rows[0]))
        text(f"   {judgement.why}", hanging="   ")


def _plain(one: Judged) -> dict[str, object]:
    return {
        "paper": one.paper.name,
        "title": one.paper.title,
        "claims": [_plain_claim(judgement) for judgement in one.judgements],
    }


def _plain_claim(judgement: Judgement) -> dict[str, object]:
    return {
        "id": judgement.claim.id,
        "sentence": judgement.claim.sentence,
        "verdict": judgement.verdict,
        "why": judgement.why,
        "config_hash": judgement.config_hash,
        "published": judgement.claim.published,
        "tests": [
            {
                **dataclasses.asdict(outcome.test),
                "value": outcome.value and outcome.value.value,
                "low": outcome.value and outcome.value.low,
                "high": outcome.value and outcome.value.high,
                "holds": outcome.holds,
                "reason": outcome.reason,
                "grade": outcome.grade,
                "config_ids": outcome.config_ids,
            }
            for outcome in judgement.outcomes
        ],
    }
