"""Traces: one process per rank, one track per lane, nothing overlapping, capped."""

from __future__ import annotations

import json
from pathlib import Path

from gnnbench.ledger import Row
from gnnbench.trace import write_trace


def _row(epoch: int, start: float, lane: str = "compute", kind: str = "gemm", size: int = 0) -> Row:
    return Row(epoch, 0, "step", kind, "op", lane, "forward", 1, 0, size, 7, start, 0.5)


def _events(path: Path) -> list[dict]:
    return json.loads(path.read_text())["traceEvents"]


def test_spans_are_in_microseconds_on_the_track_of_their_lane(tmp_path: Path) -> None:
    rows = [_row(0, 1.0), _row(0, 1.5, "comm", "all_reduce", 64)]
    assert write_trace(tmp_path / "t.json", {"measured": {3: rows}}) == 0
    events = _events(tmp_path / "t.json")
    spans = [e for e in events if e["ph"] == "X"]
    assert [(s["ts"], s["dur"]) for s in spans] == [(1e6, 5e5), (1.5e6, 5e5)]
    assert spans[0]["tid"] != spans[1]["tid"]
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} == {"measured rank 3"}
    counters = [(e["ts"], e["args"]["bytes"]) for e in events if e["ph"] == "C"]
    assert counters == [(1.5e6, 64), (2e6, 0)]


def test_both_worlds_stand_side_by_side(tmp_path: Path) -> None:
    worlds = {"measured": {0: [_row(0, 0.0)]}, "predicted": {0: [_row(0, 0.0)], 1: [_row(0, 0.0)]}}
    write_trace(tmp_path / "t.json", worlds)
    assert len({e["pid"] for e in _events(tmp_path / "t.json") if e["ph"] == "X"}) == 3


def test_a_long_run_is_cut_after_whole_epochs(tmp_path: Path) -> None:
    rows = [_row(epoch, epoch + i / 10) for epoch in range(100) for i in range(10)]
    left_out = write_trace(tmp_path / "t.json", {"measured": {0: rows}}, max_events=90)
    spans = [e for e in _events(tmp_path / "t.json") if e["ph"] == "X"]
    assert len(spans) == 40
    assert left_out == 960
    assert max(s["args"]["epoch"] for s in spans) == 3
