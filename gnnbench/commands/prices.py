"""`gnnbench prices`: time and price of an epoch from disk and in memory, side by side."""

from __future__ import annotations

import argparse
import dataclasses

from gnnbench.commands.options import output_file

NAME = "prices"
HELP = "predict time and price of an epoch from one machine's disk and in memory on 1 to 8 GPUs"
DEFAULT = "disk-prices"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "page",
        nargs="?",
        default=DEFAULT,
        metavar="PAGE|FILE.toml",
        help=f"a page of the catalogue, or a file of settings (default: {DEFAULT})",
    )
    parser.add_argument(
        "--out",
        type=output_file,
        metavar="FILE.md",
        help="write the page there instead of printing it",
    )


def run(args: argparse.Namespace) -> int:
    from gnnbench.atomic import write_text
    from gnnbench.commands.output import emit_json, progress, text
    from gnnbench.price_page import load_page
    from gnnbench_reports.price_table import answer, markdown
    from gnnbench_simulator.prices import price

    page = load_page(args.page)
    with progress("prices", sum(len(w.settings) for w in page.workloads)) as advance:
        tables = price(page, advance)
    if args.json:
        emit_json(
            [
                {
                    "workload": workload.title,
                    **dataclasses.asdict(row.setting),
                    "period_s": row.record.period_s if row.record else None,
                    "low_s": row.record.low_s if row.record else None,
                    "high_s": row.record.high_s if row.record else None,
                    "usd": row.usd(row.record.period_s) if row.record else None,
                    "disk_bytes": row.disk_bytes,
                    "grade": row.record.grade if row.record else "",
                    "reason": row.reason,
                }
                for workload, rows in zip(page.workloads, tables, strict=True)
                for row in rows
            ]
        )
        return 0
    made = "gnnbench prices" if args.page == DEFAULT else f"gnnbench prices {args.page}"
    shown = args.out if args.out is None or not args.out.is_absolute() else args.out.name
    command = f"{made} --out {shown}" if args.out else made
    document = markdown(page, tables, command)
    if args.out is None:
        print(document, end="")
        return 0
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.out, document)
    for workload, rows in zip(page.workloads, tables, strict=True):
        text(f"{workload.title}: {answer(workload, rows)}")
    text(f"written: {args.out}")
    return 0
