"""`gnnbench accelerate` as people use it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gnnbench.cli import main

GRAPH = ["accelerate", "rmat", "--option", "scale=8", "--features", "16", "--classes", "4"]


def test_it_prints_what_runs_together_and_the_gain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GRAPH, "--hidden", "16", "--product", "aggregate_first"]) == 0
    said = capsys.readouterr().out
    assert "forward/1/sparse > forward/1/dense" in said
    assert "one engine after the other" in said
    assert "assumed or unverified" in said


def test_json_has_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*GRAPH, "--chunks", "4", "--nodes", "johnson", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["chunks"] == 4
    assert told["makespan_s"] == pytest.approx(sum(g["makespan_s"] for g in told["groups"]))
    assert told["speed_up_over_serial"] == pytest.approx(told["serial_s"] / told["makespan_s"])
    assert told["exact_sizes"]


def test_a_stored_profile_will_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accelerate", "ogbn-arxiv", "--json", "--chunks", "8", "--nodes", "degree"]) == 0
    assert not json.loads(capsys.readouterr().out)["exact_sizes"]


def test_figure_and_trace_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure, trace = tmp_path / "timeline.svg", tmp_path / "timeline.json"
    words = ["--chunks", "6", "--dense", "tpu-v5e", "--product", "aggregate_first"]
    assert main([*GRAPH, *words, "--figure", str(figure), "--trace", str(trace)]) == 0
    assert figure.read_bytes().startswith(b"<?xml")
    spans = [e for e in json.loads(trace.read_text())["traceEvents"] if e["ph"] == "X"]
    # Two layers of six chunks: sparse, link and dense.
    assert len(spans) == 2 * 6 * 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sparse", "hygnc"], "did you mean 'hygcn'?"),
        (["--sparse", "tpu-v1"], "has a dense engine only"),
        (["--fuse", "softmax"], "allowed: scale, bias, activation"),
        (["--figure", "timeline.gif"], "allowed: pdf, svg, png"),
        (["--model-kind", "gat"], "computes new edge weights in every layer"),
    ],
)
def test_mistakes_are_answered_in_a_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*GRAPH, *words]) == 2
    assert said in capsys.readouterr().err


def test_an_option_without_a_value_is_a_wrong_argument(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*GRAPH, "--option", "scale"])
    assert "'scale' is not of the form key=value" in capsys.readouterr().err


def test_a_graph_without_widths_asks_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accelerate", "rmat", "--option", "scale=6"]) == 2
    assert "--features and --classes" in capsys.readouterr().err


def test_a_profile_has_no_format_and_no_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accelerate", "ogbn-arxiv", "--option", "scale=8"]) == 2
    assert "--option: ogbn-arxiv is a stored profile" in capsys.readouterr().err
