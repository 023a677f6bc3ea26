"""`gnnbench sweep`: the answer first, in 80 columns; all what-ifs in a table and as JSON."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

Say = Callable[..., tuple[int, str, str]]
AXES = (
    *("sweep", "ogbn-products", "--approaches", "partition,sampled", "--hidden", "64,128"),
    *("--machines", "8xp4de.24xlarge,8xp4d.24xlarge,8xt4", "--layers", "2"),
    *("--fanouts", "15,10/5,5", "--vary", "price.usd_per_hour=10,20"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def answer(folder: Path) -> list[str]:
    import contextlib
    import io

    from gnnbench.cli import main

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main([*AXES, "--csv", str(folder / "all.csv")]) == 0
    return text.getvalue().splitlines()


def test_the_first_sentence_is_the_cheapest_and_no_line_is_wider_than_80(answer: list[str]) -> None:
    first = " ".join(answer[: answer.index("")])
    assert "is the cheapest that fits: 100 epochs in " in first
    for part in (" USD, ", " kWh (datasheet power)", "optimiser steps per epoch: ", "per rank."):
        assert part in first
    assert max(map(len, answer)) <= 80


def test_the_sections_are_there(answer: list[str]) -> None:
    text = "\n".join(answer)
    for words in (
        "Cheapest of each workload (their times are no alternatives):",
        "Pareto set over time, price, memory, energy of 100 epochs",
        "Break-even: rent of a host",
        "Sensitivity of the time of ",
    ):
        assert words in text


def test_the_table_has_every_what_if(answer: list[str], folder: Path) -> None:
    with (folder / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    # 2 widths x 2 fan-outs x (partition, three placements of sampled) x 4 machines x 2 rents
    assert len(rows) == 2 * 2 * 4 * 4 * 2
    assert {row["verdict"] for row in rows} <= {"fits", "tight", "does not fit", "cannot run"}
    assert any(row["pareto"] == "True" for row in rows)
    rents = {row["cluster"].partition("+")[2] for row in rows}
    assert rents == {"price.usd_per_hour=10", "price.usd_per_hour=20"}


def test_json_has_the_same(say: Say) -> None:
    words = ("--machines", "8xp4de.24xlarge", "--approaches", "partition", "--layers", "2")
    code, out, _ = say("sweep", "ogbn-products", *words, "--json")
    found = json.loads(out)
    assert code == 0
    assert found["cheapest"]["machine"] == "1 x p4de.24xlarge"
    assert found["what_ifs"][0]["total_s"] == pytest.approx(100 * found["what_ifs"][0]["period_s"])
    assert found["tornado"][0]["time_low"] <= 1 <= found["tornado"][0]["time_high"]


def test_a_graph_that_fits_nowhere_is_said_with_a_way_out(say: Say) -> None:
    words = ("--machines", "8xt4", "--approaches", "partition", "--set", "features=9TB")
    code, out, _ = say("sweep", "ogbn-products", *words)
    assert code == 1
    first = " ".join(out.split())
    assert first.startswith("Nothing fits. The closest is partition on ")
    assert "try more devices, or fewer features" in first


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--pareto", "tim"], "--pareto tim: unknown, did you mean 'time'?"),
        (["--precision", "float23"], "did you mean 'float32'?"),
        (["--hidden", "wide"], "--hidden wide: expected numbers"),
        (["--knob", "cach=1"], "--knob cach: none of partition has it"),
        (["--vary", "links.intr.latency_s=1"], "unknown key, did you mean 'intra'?"),
        (["--machines", "7xt4:2"], "7 devices do not fill hosts"),
        (["--set", "num_featurs=1"], "did you mean 'num_features'?"),
        (["--fanouts", "5,5"], "2 for 3 layers; one per layer"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(say: Say, words: list[str], problem: str) -> None:
    known = ["--approaches", "partition"] + (
        [] if "--machines" in words else ["--machines", "8xt4"]
    )
    code, _, err = say("sweep", "ogbn-products", *known, *words)
    assert code == 2
    assert problem in err
    assert err.count("\n") == 1
