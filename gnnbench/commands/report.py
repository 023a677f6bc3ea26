"""`gnnbench report`: one page with figures and tables from a results folder."""

from __future__ import annotations

import argparse

from gnnbench.commands import options

NAME = "report"
HELP = "write one self-contained page with figures and tables from a results folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_results_dir(parser)
    parser.add_argument(
        "--out",
        type=options.output_folder,
        metavar="FOLDER",
        help="where to write; default: DIR/report",
    )
    parser.add_argument(
        "--cluster",
        metavar="NAME",
        help="show the predictions for this cluster; default: the one graded best",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, name_passed_over, progress, text
    from gnnbench.results import Results
    from gnnbench_reports import figures
    from gnnbench_reports.answer import opening
    from gnnbench_reports.finding import findings
    from gnnbench_reports.opening import read_study
    from gnnbench_reports.report import write_report
    from gnnbench_reports.verdict import verdict

    results = Results(args.results, create=False)
    study = read_study(results, args.cluster)
    found = findings(study)
    with progress("report", total=len(figures.NAMES)) as advance:
        path = write_report(
            study, args.out or results.folder / "report", found=found, drawn=advance
        )
    name_passed_over(results)
    sentences = opening(study) + verdict(study.summary, study.rows, found)
    if args.json:
        emit_json({"page": path, "cluster": study.cluster, "verdict": sentences})
        return 0
    for sentence in sentences:
        text(sentence, hanging="  ")
    print(f"wrote {path}")
    return 0
