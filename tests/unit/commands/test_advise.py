"""`gnnbench advise`: one question, one answer, in one screen."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gnnbench.cli import main

Say = Callable[..., tuple[int, str, str]]
QUESTION = (
    *("advise", "ogbn-products", "--set", "features=100GB"),
    *("--machines", "8xp4de.24xlarge,8xp4de.24xlarge:4,8xt4"),
    *("--approaches", "partition,cagnet-1d,sampled"),
)


@pytest.fixture(scope="module")
def answer() -> list[str]:
    """The lines of the answer to the question of the README, with its explanation."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main([*QUESTION, "--explain"]) == 0
    return text.getvalue().splitlines()


def test_the_answer_is_the_first_sentence_and_has_all_that_was_asked(answer: list[str]) -> None:
    sentence = " ".join(answer[: answer.index("")]).split("Mind:")[0]
    for part in (
        "1 x p4de.24xlarge (8 A100-80GB) with partition: 100 epochs in ",
        " USD; ",
        "device memory stay free per rank, P(out of memory) <0.1 %",
        "evidence: transferred constants, sizes estimated from a profile.",
    ):
        assert part in sentence
    mind = " ".join(answer[: answer.index("")])
    assert "one of sampled 193 optimiser steps, which are not equally good" in mind


def test_no_line_is_wider_than_80_columns(answer: list[str]) -> None:
    assert max(map(len, answer)) <= 80


def test_a_choice_on_batches_says_the_range_of_its_memory(say: Say) -> None:
    words = ["advise", "ogbn-products", "--machines", "8xa100-80", "--approaches", "sampled"]
    code, out, _ = say(*words)
    text = " ".join(out.split())
    assert code == 0
    found = re.search(r"a rank needs ([\d.]+) GiB \(([\d.]+) to ([\d.]+)\) of its device", text)
    assert found is not None, text
    needed, low, high = map(float, found.groups())
    assert low <= needed <= high
    assert low < high


def test_machines_are_ranked_and_what_was_ruled_out_has_a_way_out(answer: list[str]) -> None:
    at = answer.index("Machines, each with its best approach (cheapest first):")
    assert [line.split("  ")[0] for line in answer[at + 2 : at + 5]] == [
        *("1 x p4de.24xlarge", "2 x p4de.24xlarge:4", "2 x g4dn.12xlarge")
    ]
    assert "  sampled (host)  " in answer[at + 4]  # 100 GB of features, devices of 15
    text = " ".join(line.strip() for line in answer)
    assert "8 x g4dn.xlarge (8 T4): cagnet-1d needs 14.6 GiB of 14.0 GiB" in text
    assert "GiB too much; fits: 16 T4 (16 x g4dn.xlarge)" in text
    assert "Measure first: " in text
    assert "Assumed: ogbn-products with num_features = 10,208; " in text


def test_the_explanation_names_steps_constants_and_memory(answer: list[str]) -> None:
    assert "Steps of the slowest rank on 1 x p4de.24xlarge, waiting included:" in answer
    text = "\n".join(answer)
    assert "- launch = 1e-05 s (unverified: " in text
    assert "kernel, median error on matrices left out" in text
    at = next(i for i, line in enumerate(answer) if line.startswith("Device memory of rank"))
    table = next(i for i in range(at, len(answer)) if answer[i].startswith("category"))
    names = [line.split("  ")[0] for line in answer[table + 1 : table + 8]]
    assert names[:2] == ["features", "topology and labels"]
    assert {"framework context", "allocator reserve"} <= set(names)


def test_json_has_the_same_answer_and_records_are_kept(say: Say, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    code, out, _ = say(*QUESTION, "--json", "--explain", "--results", str(folder))
    found = json.loads(out)
    assert code == 0
    assert found["answer"].startswith("1 x p4de.24xlarge (8 A100-80GB) with partition")
    assert found["best"]["usd"] == pytest.approx(27.44705 * found["best"]["total_s"] / 3600)
    assert [choice["machine"] for choice in found["ranked"]] == [
        *("1 x p4de.24xlarge", "2 x p4de.24xlarge:4", "2 x g4dn.12xlarge")
    ]
    assert {out["machine"] for out in found["ruled_out"]} == {"8 x g4dn.xlarge"}
    assert found["explanation"]["steps"]
    kept = {path.parent.name for path in folder.glob("predictions/*/prediction.json")}
    assert any("@p4de.24xlarge-x4" in name for name in kept)
    assert any("@p4de.24xlarge-x8" in name for name in kept)


def test_a_graph_that_fits_nowhere_is_said_in_the_first_line(say: Say) -> None:
    words = ("--machines", "8xt4", "--approaches", "partition")
    code, out, _ = say("advise", "ogbn-products", "--set", "features=9TB", *words)
    assert code == 1
    assert out.startswith("Nothing fits; the closest is ")
    assert "ask for more devices, or fewer features." in " ".join(out.split())


def test_an_accuracy_that_no_training_is_known_of_is_named_before_the_tables(
    say: Say, tmp_path: Path
) -> None:
    counts = ("--nodes", "16000000", "--edges", "500000000", "--features", "64GB")
    made = ("--classes", "50", "--train", "2000000", "--out", str(tmp_path / "mine.toml"))
    assert say("profile", "fit", "--name", "mine", *counts, *made)[0] == 0
    few = ("--approaches", "mixture,cluster-gcn,partition,pipegcn")
    words = ("--accuracy", "0.8", "--machines", "8xa100-80", *few)
    code, out, _ = say("advise", str(tmp_path / "mine.toml"), *words)
    head, _, rest = out.partition("Machines, each with its best approach")
    assert code == 0
    assert (
        "Mind: no published training of mine says when it reaches an accuracy of 0.8: time and "
        "price are those of 100 epochs (--epochs)."
    ) in " ".join(head.split())
    assert "  epochs  " not in rest  # the same for all
    # Two approaches that need what the profile lacks share a line, which says how to mend it.
    lacks = "no halo curve of METIS (`profile fit --like` lends one)"
    assert f"- partition, pipegcn: profile mine: {lacks}" in " ".join(rest.split())
    assert max(map(len, out.splitlines())) <= 80


def test_triples_that_memory_cannot_hold_are_trained_from_the_disk(say: Say) -> None:
    words = ("--machines", "p3.2xlarge", "--epochs", "10")
    code, out, _ = say("advise", "wikikg90m", *words)
    text = " ".join(out.split())
    assert code == 0
    assert text.startswith("1 x p3.2xlarge (1 V100-16GB) with out-of-core (buffer 256/1024): ")
    # Several ranks are refused for a reason, though the approaches run on one.
    assert "- 2 x p3.2xlarge, 4 x p3.2xlarge and 1 more: " in text
    assert "out-of-core trains on one rank: several ranks over one disk are not built" in text


def test_a_machine_of_ones_own_costs_nothing(say: Say) -> None:
    free = ("--set", "rtx4090x8:price.usd_per_hour=0")
    words = ("--machines", "1xrtx4090,8xa100-80", "--approaches", "partition,single", *free)
    code, out, _ = say("advise", "ogbn-products", *words)
    assert code == 0
    assert " for 0 USD; " in " ".join(out.split())
    assert "Measure first: " in out


def test_a_disk_that_is_not_described_is_asked_for(say: Say) -> None:
    few = ("--approaches", "belady,sampled", "--set", "host.memory_bytes=64e9")
    code, out, _ = say("advise", "ogbn-papers100m", "--machines", "1xrtx4090", *few)
    assert code == 1
    assert "add [storage] to `gnnbench info rtx4090x8 --toml`" in " ".join(out.split())


def test_no_run_needs_more_of_a_device_than_there_is(say: Say) -> None:
    few = ("--approaches", "cluster-gcn")
    code, out, _ = say("advise", "ogbn-papers100m", "--machines", "8xp4d.24xlarge", *few)
    assert code == 0
    assert " GiB (22.4 to 37.3) of its device, " in " ".join(out.split())


def test_a_generated_graph_is_counted(say: Say) -> None:
    sizes = {"num_nodes": 300, "mean_degree": 6, "num_classes": 4, "num_features": 8}
    words = [word for key, n in sizes.items() for word in ("--set", f"{key}={n}")]
    words += ["--hidden", "8", "--layers", "2", "--machines", "1xt4", "--approaches", "single"]
    code, out, _ = say("advise", "planted_partition", *words)
    assert code == 0
    assert "sizes counted" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["ogbn-product"], "unknown dataset 'ogbn-product': did you mean 'ogbn-products'?"),
        (["ogbn-products", "--set", "num_featurs=3"], "did you mean 'num_features'?"),
        (["ogbn-products", "--set", "features=1B"], "less than one float32 for each of"),
        (["no/such.npz", "--set", "num_nodes=3"], "replaces a profile's fact; no/such.npz"),
        (["ogbn-products", "--model", "gcm"], "unknown model 'gcm'"),
        (["ogbn-products", "--approaches", "partitions"], "did you mean 'partition'?"),
        (["ogbn-products", "--fanouts", "5,5"], "2 for 3 layers; one per layer"),
        (["ogbn-products", "--deadline", "soon"], "expected a duration such as"),
        (["ogbn-products", "--machines", "8xA9000"], "unknown machine or device 'A9000'"),
        (["ogbn-products", "--machines", "8xA9000"], "`gnnbench list clusters` shows the "),
        (["ogbn-products", "--machines", "7xa100-80:4"], "7 devices do not fill hosts of "),
        (["ogbn-products", "--set", "links.inter.bytes_per_s=-1"], "a rate is a number above 0"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(say: Say, words: list[str], problem: str) -> None:
    code, _, err = say("advise", *words)
    assert code == 2
    assert problem in err
    assert err.count("\n") == 1


def test_a_stream_is_answered_by_rates_and_a_long_one_by_a_part(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gnnbench.commands.advised.PART_EVENTS", 3000)
    words = ("--machines", "1xt4", "--approaches", "continuous", "--hidden", "16")
    code, out, _ = say("advise", "gdelt", "--event-rate", "864k/day", *words)
    text = " ".join(out.split())
    assert code == 0
    assert "with continuous keeps up with 10.0 events per second: it learns from " in text
    assert " times the rate asked for, at 0.53 USD per hour; " in text
    assert "Assumed: gdelt with num_edges = 3,000; " in text
    assert "(lowest rent first; limits met)" in text
    assert max(map(len, out.splitlines())) <= 80


def test_an_interval_has_the_unit_of_its_time(answer: list[str]) -> None:
    units = [re.findall(r"\b(ms|s|min|h|d)\b", line)[:2] for line in answer if " … " in line]
    assert [pair for pair in units if len(pair) == 2 and pair[0] != pair[1]] == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--set", "num_nodes=9"), "`gnnbench profile fit` makes a profile of other counts"),
        (("--set", "num_featurs=9"), "unknown fact, did you mean 'num_features'?"),
        (("--event-rate", "5/day"), "ogbn-products is a graph, events are those of a stream"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_way_out(
    say: Say, words: tuple[str, ...], told: str
) -> None:
    code, _, err = say("advise", "ogbn-products", "--machines", "1xt4", *words)
    assert code == 2
    assert told in err
    assert len(err.splitlines()) == 1
