"""`gnnbench predict`: on clusters one does not have, at any rank count, without torch."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gnnbench.cli import main
from gnnbench.cluster import load_cluster, save_cluster
from gnnbench.results import Results

Rows = Callable[..., list[dict[str, Any]]]
Write = Callable[[str], str]
DGX = ("--cluster", "dgx-a100")

REDDIT = """
name = "reddit"
[datasets.reddit]
profile = "reddit"
[models.sage]
kind = "sage"
hidden = 256
[[runs]]
dataset = "reddit"
model = "sage"
approach = ["partition", "sampled"]
ranks = 8
"""
SMALL = """
name = "small"
[datasets.g]
generator = "planted_partition"
options = { num_nodes = 300, mean_degree = 6, num_classes = 4, num_features = 8 }
[models.m]
[batch]
size = 60
fanouts_from_seeds = [3, 2]
[training]
epochs = 3
[[runs]]
dataset = "g"
model = "m"
approach = ["single", "partition", "sampled"]
ranks = [1, 2]
knobs = { partitioner = "hash" }
"""
BATCHES = """
name = "batches"
[datasets.p]
profile = "ogbn-products"
[models.m]
kind = "sage"
hidden = 256
layers = 3
[batch]
size = 4096
fanouts_from_seeds = [15, 10, 5]
[[runs]]
dataset = "p"
model = "m"
approach = "sampled"
ranks = 4
"""


@pytest.fixture
def suite(tmp_path: Path) -> Write:
    def write(text: str) -> str:
        path = tmp_path / "suite.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def small(suite: Write) -> str:
    return suite(SMALL)


@pytest.fixture
def reddit(suite: Write) -> str:
    return suite(REDDIT)


@pytest.fixture
def rows(capsys: pytest.CaptureFixture[str]) -> Rows:
    """Return the rows of `gnnbench predict --json` with these words, which must succeed."""

    def predict(*words: str) -> list[dict[str, Any]]:
        assert main(["predict", *words, "--json"]) == 0
        found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
        return found

    return predict


def test_a_published_graph_is_predicted_on_a_cluster_one_does_not_have(
    reddit: str, rows: Rows
) -> None:
    partition, sampled = rows(reddit, *DGX)
    for row in (partition, sampled):
        assert row["status"] == "ok"
        assert row["cluster"] == "dgx-a100"
        assert row["grade"] == ("transferred" if row is partition else "datasheet")
        assert 0 < row["low_s"] <= row["period_s"] <= row["high_s"]
        assert not row["counted"]
        assert row["peak_memory_bytes"] > 0
    assert partition["basis"].startswith("halo curve of reddit")
    assert sampled["basis"].startswith("frontier estimated from degrees")
    assert set(partition["bytes_per_period"]) == {
        *("all_to_all/forward", "all_to_all/backward", "all_reduce/sync")
    }


def test_rank_counts_replace_the_suites_own_where_the_approach_can(small: str, rows: Rows) -> None:
    found = rows(small, *DGX, "--ranks", "1,2,4,8,16,32,64")
    asked = [(row["approach"], row["ranks"]) for row in found]
    assert len(asked) == len(set(asked))
    many = [1, 2, 4, 8, 16, 32, 64]
    of = {name: [r for n, r in asked if n == name] for name in ("partition", "sampled")}
    assert of == {"partition": many, "sampled": many}
    # `single` is there on one rank; on two because the suite asks for it, with the reason.
    single = {row["ranks"]: row for row in found if row["approach"] == "single"}
    assert {ranks: row["status"] for ranks, row in single.items()} == {1: "ok", 2: "skipped"}
    assert single[2]["reason"] == "single runs on 1 rank, 2 asked"
    assert all(row["counted"] for row in found if row["status"] == "ok")
    sent = [sum(r["bytes_per_period"].values()) for r in found if r["approach"] == "partition"]
    assert sent[0] == 0
    assert 0 < sent[1] < sent[2]


def test_predictions_are_kept_with_the_ledgers_of_a_few_ranks(
    small: str, rows: Rows, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    found = rows(small, *DGX, "--results", str(folder))
    results = Results(folder)
    records = {record.config_id: record for record in results.predictions()}
    assert set(records) == {row["config_id"] for row in found}
    for row in found:
        ledgers = results.predicted_ledger(records[row["config_id"]])
        assert bool(ledgers) == (row["status"] == "ok")
        if ledgers:
            sent = sum(step.bytes for step in ledgers[0] if step.group_size > 1)
            assert (sent > 0) == (row["ranks"] > 1)


def test_the_cluster_of_the_results_folder_is_the_default(
    small: str, rows: Rows, tmp_path: Path
) -> None:
    file = small
    assert {row["cluster"] for row in rows(file)} == {"cpu-2core"}
    folder = tmp_path / "results"
    folder.mkdir()
    save_cluster(load_cluster("v100x8"), folder / "cluster.toml")
    assert {row["cluster"] for row in rows(file, "--results", str(folder))} == {"v100x8"}


def test_what_needs_more_hosts_than_there_are_is_skipped_with_their_number(
    small: str, rows: Rows, tmp_path: Path
) -> None:
    one = load_cluster("dgx-a100")
    one = dataclasses.replace(one, host=dataclasses.replace(one.host, hosts_max=1), name="one")
    save_cluster(one, tmp_path / "one.toml")
    found = rows(small, "--cluster", str(tmp_path / "one.toml"), "--ranks", "8,16")
    outcomes = {(row["ranks"], row["status"]) for row in found if row["approach"] != "single"}
    assert outcomes == {(8, "ok"), (16, "skipped")}
    reasons = {row["reason"] for row in found if row["ranks"] == 16}
    assert reasons == {"16 ranks need 2 hosts; cluster one has 1"}


def test_what_does_not_fit_the_memory_is_skipped_with_its_size(
    reddit: str, rows: Rows, tmp_path: Path
) -> None:
    tiny = load_cluster("dgx-a100")
    size = dataclasses.replace(tiny.device.memory_bytes, value=1e9)
    tiny = dataclasses.replace(tiny, device=dataclasses.replace(tiny.device, memory_bytes=size))
    save_cluster(tiny, tmp_path / "tiny.toml")
    found = rows(reddit, "--cluster", str(tmp_path / "tiny.toml"))
    partition = next(row for row in found if row["approach"] == "partition")
    assert partition["status"] == "skipped"
    assert partition["reason"].startswith("out of memory: rank ")
    assert partition["reason"].endswith("GiB of device memory, 0.9 GiB there are")


def test_a_dataset_that_is_not_there_skips_its_runs_only(suite: Write, rows: Rows) -> None:
    text = SMALL.replace("[models.m]", '[datasets.gone]\npath = "gone.txt"\n[models.m]')
    found = rows(suite(text.replace('dataset = "g"', 'dataset = ["g", "gone"]')))
    status = {(row["dataset"], row["status"]) for row in found if row["approach"] == "partition"}
    assert status == {("g", "ok"), ("gone", "skipped")}
    assert any("dataset not found: gone.txt" in row["reason"] for row in found)


def test_a_trace_is_written_of_the_last_prediction(small: str, rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    rows(small, *DGX, "--trace", str(path))
    events = json.loads(path.read_text(encoding="utf-8"))
    assert events


def test_the_table_has_a_line_per_configuration_and_names_the_cluster(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", small, *DGX]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("on dgx-a100: ")
    assert lines[1] == "g, m (constants: datasheet):"
    assert lines[2].split()[:3] == ["approach", "ranks", "epoch"]
    assert [line.split()[0] for line in lines[3:8]] == [
        *["partition"] * 2,
        *["sampled"] * 2,
        "single",
    ]
    assert lines[8] == "memory of the rank with the least room, GiB (device memory):"
    heads = lines[9].split()
    assert heads[-3:] == ["needs", "of", "P(oom)"]
    for line in lines[10:15]:
        cells = dict(zip(heads, line.split(), strict=True))
        parts = sum(float(cells[head]) for head in heads[2:8])
        assert parts == pytest.approx(float(cells["needs"]), abs=0.01)
    assert lines[15] == "device memory over runs whose batches differ:"
    assert lines[16].split() == ["approach", "ranks", "needs", "(lowest", "to", "highest)"]
    for line, ranks in zip(lines[17:19], ("1", "2"), strict=True):
        assert line.split()[:2] == ["sampled", ranks]
        assert re.search(r" [GM]iB( \([\d.]+ to [\d.]+\))?$", line)
    assert lines[19:] == ["skipped: single runs on 1 rank, 2 asked: g, single on 2"]
    assert all("of 74.5 GiB" in line for line in lines[3:8])


def test_memory_that_differs_with_the_batches_is_printed_with_its_range_in_one_line(
    suite: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = suite(BATCHES)
    assert main(["predict", path, *DGX, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    memory = next(row["memory"] for row in rows if row["approach"] == "sampled")
    low, _, high = memory["reserved_quantiles_bytes"]
    assert main(["predict", path, *DGX]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("device memory over runs whose batches differ:")
    assert max(map(len, lines[at : at + 3])) <= 80
    found = re.fullmatch(r"sampled +4  ([\d.]+) ([GM]iB) \(([\d.]+) to ([\d.]+)\)", lines[at + 2])
    assert found is not None, lines[at + 2]
    unit = {"GiB": 2**30, "MiB": 2**20}[found[2]]
    context, needed = memory["baseline_bytes"], memory["device_used_bytes"]
    for shown, size in zip(
        (found[1], found[3], found[4]),
        (needed, min(needed, context + low), max(needed, context + high)),
        strict=True,
    ):
        assert float(shown) * unit == pytest.approx(size, rel=5e-3)


def test_several_clusters_and_layouts_are_one_table_and_replace_no_other(
    reddit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "results")
    words = ["--cluster", "dgx-a100,v100x8", "--ranks-per-host", "4,8", "--results", folder]
    assert main(["predict", reddit, *words]) == 0
    text = capsys.readouterr().out
    places = [f"{name}:{n}" for name in ("dgx-a100", "v100x8") for n in (4, 8)]
    assert all(text.count(f" {place} ") == 2 for place in places)
    records = list(Results(folder).predictions())
    keys = {(r.config_id, r.cluster, r.ranks_per_host) for r in records}
    assert len(keys) == len(records) == 8
    assert main(["compare", folder]) == 0
    compared = capsys.readouterr().out
    assert all(f"partition on {place}" in compared for place in places)


def test_a_changed_constant_makes_a_cluster_of_its_own(reddit: str, rows: Rows) -> None:
    before = rows(reddit, *DGX)
    after = rows(reddit, *DGX, "--set", "device.launch_s=0.01")
    assert {row["cluster"] for row in after} == {"dgx-a100+device.launch_s=0.01"}
    assert after[0]["period_s"] > before[0]["period_s"]


def test_without_a_cluster_the_first_line_says_which_is_assumed(
    small: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", small]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("on cpu-2core (assumed; name others with --cluster): ")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["demo", "--cluster", "dgx-a10"], "unknown cluster 'dgx-a10': did you mean 'dgx-a100'?"),
        (["demo", "--cluster", "no/such.toml"], "no/such.toml: cannot read: No such file"),
        (["dmo"], "unknown suite 'dmo': did you mean 'demo'?"),
        (["demo", "--ranks", "0"], "'0' is not a list of rank counts"),
        (["demo", "--ranks-per-host", "0"], "'0' is not a list of rank counts"),
        (["demo", "--set", "links.inter.bytes_per_s=-1"], "a rate is a number above 0"),
        (["demo", "--set", "host.devicess=1"], "unknown key, did you mean"),
        (["demo", "--data", "no/such"], "--data no/such: no such folder"),
        (["demo", "--rank", "2"], "unrecognised argument '--rank'; did you mean --ranks?"),
        ([], "the following arguments are required: SUITE"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    say: Callable[..., tuple[int, str, str]], words: list[str], problem: str
) -> None:
    code, _, err = say("predict", *words)
    assert code == 2
    assert problem in err
    assert err.count("\n") == 1


def test_the_demo_is_predicted_without_torch_and_imports_none_of_it() -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"  # as if it were not installed
        "from gnnbench.cli import main\n"
        "code = main(['predict', 'demo', '--ranks', '1,2', '--json'])\n"
        "assert sys.modules['torch'] is None\n"
        "assert not any(name.startswith(('torch.', 'gnnbench_runtime')) for name in sys.modules)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {row["status"] for row in found} == {"ok"}
    assert len(found) == 10


def test_approaches_left_out_at_a_rank_count_are_told_with_their_reason(
    suite: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SMALL.replace("ranks = [1, 2]", "ranks = 1")
    assert main(["predict", suite(text), *DGX, "--ranks", "3,4"]) == 0
    left = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out")]
    assert left == ["left out: single on 3, 4 ranks: single runs on 1 rank, 3 asked"]


def test_layouts_are_predicted_side_by_side(reddit: str, rows: Rows, tmp_path: Path) -> None:
    folder = str(tmp_path / "results")
    for per_host in ("8", "2"):
        found = rows(
            reddit,
            *(*DGX, "--results", folder, "--ranks-per-host", per_host),
        )
        assert {row["ranks_per_host"] for row in found} == {int(per_host)}
    records = list(Results(folder).predictions())
    times = {(r.run.approach, r.ranks_per_host): r.period_s for r in records}
    assert len(times) == len(records) == 4
    assert times["partition", 2] > times["partition", 8]  # four hosts talk over the network


def test_sensitivity_says_what_moves_a_time_most(small: str, rows: Rows, tmp_path: Path) -> None:
    words = (small, *DGX, "--ranks", "2", "--results", str(tmp_path / "r"))
    plain = rows(*words)
    assert all(row["sensitivity"] == [] for row in plain)
    found = rows(*words, "--sensitivity")
    timed = [pair for pair in zip(plain, found, strict=True) if pair[1]["status"] == "ok"]
    assert len(timed) == 2
    for before, row in timed:
        assert row["period_s"] == before["period_s"]
        widths = [swing["high"] / swing["low"] for swing in row["sensitivity"]]
        assert widths == sorted(widths, reverse=True) and widths[0] > 1.01
        assert {swing["what"] for swing in row["sensitivity"]} == {"operation", "constant"}
    kept = [one for one in Results(tmp_path / "r").predictions() if one.status == "ok"]
    assert len(kept) == 2 and all(one.notes["sensitivity"] for one in kept)
