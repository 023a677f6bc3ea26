"""The price page as Markdown: time and rent of an epoch per setting, with interval and evidence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from gnnbench.price_page import PricePage, Setting, Workload
from gnnbench.results import PredictionRecord
from gnnbench_reports import numbers

COLUMNS = (
    "setting",
    "machine",
    "time of an epoch",
    "90 % interval",
    "USD per epoch",
    "90 % interval (USD)",
    "disk traffic",
    "evidence",
)


class Priced(Protocol):
    """A setting with its prediction, as the simulator gives it."""

    @property
    def setting(self) -> Setting: ...
    @property
    def hosts(self) -> int: ...
    @property
    def record(self) -> PredictionRecord | None: ...
    @property
    def reason(self) -> str: ...
    @property
    def runs(self) -> bool: ...
    @property
    def disk_bytes(self) -> int: ...
    @property
    def price_date(self) -> str: ...
    def usd(self, seconds: float) -> float | None: ...


def markdown(page: PricePage, tables: Sequence[Sequence[Priced]], command: str) -> str:
    """The page.

    Args:
        page: as the catalogue has it.
        tables: of each workload, its priced settings.
        command: that makes the page again.
    """
    lines = [f"# {page.title}", "", *_paragraphs(page.text)]
    lines += [f"Made by `{command}`. {_dates(tables)}", ""]
    for workload, rows in zip(page.workloads, tables, strict=True):
        lines += [
            f"## {workload.title}",
            "",
            *_paragraphs((workload.text,) if workload.text else ()),
        ]
        lines += [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
        lines += [_line(_cells(row)) for row in rows]
        lines += ["", answer(workload, rows), ""]
    lines += [f"- {remark}" for remark in page.remarks]
    return "\n".join(lines).rstrip() + "\n"


def answer(workload: Workload, rows: Sequence[Priced]) -> str:
    """Which setting is fastest and which is cheapest, and by how much they differ."""
    timed = [row for row in rows if row.runs and row.record is not None]
    if not timed:
        return "No setting of this workload can be predicted."
    fastest = min(timed, key=_seconds)
    words = f"Fastest: {fastest.setting.label} ({numbers.seconds(_seconds(fastest))})."
    priced = [row for row in timed if row.usd(1.0) is not None]
    if priced:
        cheapest = min(priced, key=lambda row: row.usd(_seconds(row)) or 0.0)
        words += (
            f" Cheapest: {cheapest.setting.label} ({_usd(cheapest.usd(_seconds(cheapest)))} USD)."
        )
        if cheapest is not fastest and fastest in priced:
            times = _seconds(cheapest) / _seconds(fastest)
            rent = (fastest.usd(_seconds(fastest)) or 0.0) / (cheapest.usd(_seconds(cheapest)) or 1)
            words += (
                f" The cheapest takes {numbers.factor(times)} the time of the fastest, and the "
                f"fastest costs {numbers.factor(rent)} the price of the cheapest."
            )
    return words


def _cells(row: Priced) -> list[str]:
    """One row; a setting that cannot run has its reason in place of a time."""
    setting = row.setting
    hosts = f"{row.hosts} x " if row.hosts > 1 else ""
    gpus = f"{setting.ranks} GPU{'s' if setting.ranks > 1 else ''}"
    machine = f"{hosts}{setting.machine}, {gpus}"
    if not row.runs or row.record is None:
        return [setting.label, machine, _reason(row.reason), *[""] * (len(COLUMNS) - 3)]
    record = row.record
    low, high = row.usd(record.low_s), row.usd(record.high_s)
    return [
        setting.label,
        machine,
        numbers.seconds(record.period_s),
        numbers.interval(record.low_s, record.high_s),
        _usd(row.usd(record.period_s)),
        "–" if low is None or high is None else f"{_usd(low)} … {_usd(high)}",
        numbers.size(row.disk_bytes) if row.disk_bytes else "none",
        record.grade,
    ]


def _seconds(row: Priced) -> float:
    assert row.record is not None
    return row.record.period_s


def _usd(value: float | None) -> str:
    return "–" if value is None else str(numbers.rounded(value, 0.05 * value))


def _reason(text: str) -> str:
    return f"cannot run: {text}"


def _cell(text: str) -> str:
    """One line in which nothing is markup."""
    return re.sub(r"([|<>`])", r"\\\1", " ".join(text.split()))


def _dates(tables: Sequence[Sequence[Priced]]) -> str:
    dated = {(row.setting.machine, row.price_date or "unknown") for rows in tables for row in rows}
    listed = ", ".join(f"{machine} ({date})" for machine, date in sorted(dated))
    return f"On-demand rent of whole hosts, and the date of its rate: {listed}."


def _paragraphs(texts: Sequence[str]) -> list[str]:
    return [line for text in texts for line in (text, "")]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"
