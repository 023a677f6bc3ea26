"""`gnnbench claims`: test the claims of papers by runs on this machine and by predictions."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
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
        "--publish",
        type=options.output_folder,
        metavar="FOLDER",
        help="write the page there, too, with the records that it links and summed ledgers: small "
        "enough for a repository",
    )
    parser.add_argument(
        "--no-run",
        action="store_true",
        help="judge by what DIR holds: nothing is trained and nothing predicted",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, text
    from gnnbench_reports.claims import rendering
    from gnnbench_reports.claims.reading import load_paper, papers

    names = [args.paper] if args.paper else papers()
    chosen = [load_paper(name) for name in names]  # all of them, before an hour of training
    judged = [_judged(paper, args) for paper in chosen]
    page = _write(judged, args.results)
    if args.publish is not None:
        _publish(judged, args)
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
    if args.publish is not None:
        text(f"published in {args.publish}")
    return 0


def _write(judged: Sequence[Judged], folder: Path) -> Path:
    """Write the page as HTML and Markdown; return the path of the first."""
    from gnnbench.atomic import write_text
    from gnnbench_reports.claims import rendering

    page = folder / "claims.html"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(page, rendering.html(judged))
    write_text(page.with_suffix(".md"), rendering.markdown(judged))
    return page


def _publish(judged: Sequence[Judged], args: argparse.Namespace) -> None:
    from gnnbench_reports.claims.publishing import publish

    found = [one for paper in judged for cited in paper.cited.values() for one in cited]
    publish(found, args.results, args.publish)
    _write([dataclasses.replace(paper, published=True) for paper in judged], args.publish)


def _judged(paper: Paper, args: argparse.Namespace) -> Judged:
    from gnnbench_reports.claims.evidence import cited
    from gnnbench_reports.claims.judging import judge
    from gnnbench_reports.claims.rendering import Judged
    from gnnbench_reports.noise import warnings

    folder = args.results / paper.name
    if not args.no_run:
        _train(paper, folder / "measured", args)
        _predict(paper, folder / "simulated")
    measured, simulated = (_study(folder / side) for side in ("measured", "simulated"))
    repeats = f" --repeats {args.repeats}" if args.repeats else ""
    judgements = judge(paper, measured, simulated)
    studies = {"measured": measured, "simulated": simulated}
    return Judged(
        paper=paper,
        judgements=judgements,
        commands=[f"gnnbench claims {paper.name}{repeats}"],
        machine="" if measured is None else _measured_on(measured),
        simulated=[] if simulated is None else [_simulated_for(name) for name in paper.clusters],
        warnings=[] if measured is None else warnings(measured.rows),
        cited={j.claim.id: tuple(cited(j, studies)) for j in judgements},
        root=args.results,
    )


def _measured_on(study: Study) -> str:
    """The machine, the day, the version, and how long the runs took."""
    from gnnbench.units import roughly
    from gnnbench_reports.against import machine

    if not study.runs:
        return ""
    words = [machine(study)]
    days = sorted({run.started_at[:10] for run in study.runs if run.started_at})
    if days:
        words.append(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")
    versions = {run.versions.get("gnnbench", "") for run in study.runs} - {""}
    words += [f"gnnbench {version}" for version in sorted(versions)]
    commits = {run.versions.get("commit", "") for run in study.runs} - {""}
    words += [f"commit {commit}" for commit in sorted(commits)]
    words.append(f"{len(study.runs)} runs in {roughly(sum(run.wall_s for run in study.runs))}")
    return ", ".join(word for word in words if word)


def _simulated_for(name: str) -> str:
    from gnnbench.cluster import load_cluster

    cluster = load_cluster(name)
    return (
        f"Simulated for `{name}` of the catalogue ({cluster.description}), whose constants are "
        f"public and not measured here; `gnnbench support {name}` lists what they rest on."
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
        session = run_all(
            runs,
            results,
            data_roots(None, suite.folder),
            device="cpu",
            watch=lambda run, what: advance.under_way(f"{run.run_id} {what}"),
        )
        for number, (record, kept) in enumerate(session, 1):
            if not args.json:
                word = "kept" if kept and record.status == "ok" else record.status
                place = f"{paper.name} {number}/{len(runs)}: {detail(record)}"
                status_line(word, record.run_id, place)
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
                "claimed": bound(outcome),
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
