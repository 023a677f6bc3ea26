"""`gnnbench export`: runs, predictions, periods and ledgers as flat tables."""

from __future__ import annotations

import argparse

from gnnbench.commands import options

NAME = "export"
HELP = "write runs, predictions, periods and ledgers as Parquet or CSV, for pandas and DuckDB"
FORMS = ("parquet", "csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_results_dir(parser)
    parser.add_argument(
        "--out",
        type=options.output_folder,
        metavar="FOLDER",
        required=True,
        help="where to write; made if absent",
    )
    parser.add_argument(
        "--format",
        choices=FORMS,
        default="",
        help="default: parquet where pyarrow is installed, else csv",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.commands.output import emit_json, name_passed_over, text
    from gnnbench.results import Results
    from gnnbench_reports.export.writing import EXTRA, PACKAGE, default_form, export

    results = Results(args.results, create=False)
    form = args.format or default_form()
    written = export(results, args.out, form)
    name_passed_over(results)
    if args.json:
        emit_json({"out": args.out, "format": form, "rows": written})
        return 0
    if not args.format and form != FORMS[0]:
        text(
            f"{PACKAGE} is not installed, so tables are CSV; Parquet keeps types and is smaller: "
            f"pip install 'gnnbench[{EXTRA}]'",
            hanging="  ",
        )
    counts = ", ".join(
        f"{number:,} {name.removesuffix('s') if number == 1 else name}"
        for name, number in written.items()
    )
    text(f"wrote {args.out} as {form}: {counts}; columns.csv says what each column is", "", "  ")
    return 0
