"""Traces: one process per rank, one track per lane, nothing overlapping, capped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gnnbench.ledger import Row
from gnnbench.steps import Lane
from gnnbench.trace import write_trace
from gnnbench_simulator.engine import simulate
from gnnbench_simulator.outcome import ledger
from gnnbench_simulator.program import compile_plan


def _row(
    period: int, start: float, lane: str = "compute", kind: str = "gemm", size: int = 0
) -> Row:
    return Row(period, 0, "step", kind, "op", lane, "forward", 1, 0, size, 7, start, 0.5)


def _events(path: Path) -> list[dict[str, Any]]:
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


def test_a_long_run_is_cut_after_whole_periods(tmp_path: Path) -> None:
    rows = [_row(period, period + i / 10) for period in range(100) for i in range(10)]
    left_out = write_trace(tmp_path / "t.json", {"measured": {0: rows}}, max_events=90)
    spans = [e for e in _events(tmp_path / "t.json") if e["ph"] == "X"]
    assert len(spans) == 40
    assert left_out == 960
    assert max(s["args"]["period"] for s in spans) == 3


def test_lanes_of_one_engine_have_a_track_each(kit: Any, tmp_path: Path) -> None:
    """The ledger of a simulated plan that reads on two disk lanes."""
    steps = [kit.disk(f"read{n}", 2, lane=Lane.DISK.at(n)) for n in (0, 1)]
    program = compile_plan(kit.plan((*steps, kit.work("train", 3))), kit.cluster())
    rows = ledger(program, simulate(program, record=(0,)), 0)
    assert write_trace(tmp_path / "t.json", {"predicted": {0: rows}}) == 0
    events = _events(tmp_path / "t.json")
    tracks = {e["args"]["name"]: e["tid"] for e in events if e["name"] == "thread_name"}
    assert tracks["disk:1"] == tracks["disk"] + 1
    spans = {e["name"]: (e["tid"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"}
    assert spans == {
        "read0": (tracks["disk"], 0.0, 4e6),
        "read1": (tracks["disk:1"], 0.0, 4e6),
        "train": (tracks["compute"], 0.0, 3e6),
    }
