"""Claims: data that are read strictly, judged by results, and rendered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pandas as pd
import pytest

from gnnbench.cli import main
from gnnbench.errors import SpecError, UnknownName
from gnnbench.suites import find_suite
from gnnbench_reports.claims import evidence, rendering
from gnnbench_reports.claims.judging import Judgement, judge
from gnnbench_reports.claims.publishing import publish
from gnnbench_reports.claims.reading import load_paper, papers, read_paper
from gnnbench_reports.opening import read_study

HEAD = """
schema = 1
title = "A paper"
reference = "Somebody, 2020"
suite = "demo"
"""
FASTER = """
[[claims]]
id = "A"
sentence = "Sampling is <b>faster</b>."
[[claims.tests]]
says = "sampled over single"
side = "measured"
quantity = "time"
of = { approach = "sampled" }
over = { approach = "single" }
is = "<"
than = %s
"""


def judged(fabricator: Any, tmp_path: Path, text: str) -> list[Judgement]:
    path = tmp_path / "paper.toml"
    path.write_text(HEAD + text)
    study = read_study(fabricator.results)
    return judge(read_paper(path), study, study)


def runs(fabricator: Any, **seconds: float) -> None:
    for approach, took in seconds.items():
        for repeat in (0, 1):
            spec = fabricator.spec(approach=approach, ranks=1, repeat=repeat)
            fabricator.run(spec, seconds=took, ledgers=False)


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [("0.9", "holds"), ("0.2", "does not hold"), ("0.505", "cannot be judged")],
)
def test_an_inequality_must_hold_over_the_whole_interval(
    bound: str, verdict: str, fabricator: Any, tmp_path: Path
) -> None:
    runs(fabricator, sampled=1.0, single=2.0)
    (one,) = judged(fabricator, tmp_path, FASTER % bound)
    assert one.verdict == verdict
    assert one.outcomes[0].value is not None and one.outcomes[0].value.value == pytest.approx(0.5)
    assert len(one.config_hash) == 12


def test_a_claim_holds_in_part_where_one_of_two_inequalities_does(
    fabricator: Any, tmp_path: Path
) -> None:
    runs(fabricator, sampled=1.0, single=2.0)
    second = (FASTER % "0.1").partition('faster</b>."')[2]
    (one,) = judged(fabricator, tmp_path, FASTER % "0.9" + second)
    assert (one.verdict, one.why) == (
        "holds in part",
        "1 of 2 inequalities hold, 1 does not",
    )


def test_what_is_not_there_cannot_be_judged_and_says_what_is_missing(
    fabricator: Any, tmp_path: Path
) -> None:
    runs(fabricator, single=2.0)
    (one,) = judged(fabricator, tmp_path, FASTER % "0.9")
    assert (one.verdict, one.why) == ("cannot be judged", "no result of approach sampled")
    text = '[[claims]]\nid = "B"\nsentence = "s"\nunjudged = "no machinery"\n'
    (one,) = judged(fabricator, tmp_path, text)
    assert (one.verdict, one.why) == ("cannot be judged", "no machinery")


def test_a_selector_that_fits_two_results_is_refused(fabricator: Any, tmp_path: Path) -> None:
    runs(fabricator, sampled=1.0, single=2.0)
    fabricator.run(fabricator.spec(approach="sampled", ranks=2), seconds=1.0)
    (one,) = judged(fabricator, tmp_path, FASTER % "0.9")
    assert one.why.startswith("2 results of approach sampled")


def test_a_difference_of_metrics_has_the_error_of_its_seeds(
    fabricator: Any, tmp_path: Path
) -> None:
    values = {"sampled": (0.81, 0.80, 0.80), "single": (0.82, 0.82, 0.83)}
    for approach, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            spec = fabricator.spec(approach=approach, ranks=1, seed=seed)
            fabricator.run(spec, metrics={"test_accuracy": value})
    text = FASTER.replace('"time"', '"metric"').replace("over =", "minus =").replace('"<"', '">="')
    verdicts = [judged(fabricator, tmp_path, text % bound)[0].verdict for bound in (-0.05, -0.02)]
    assert verdicts == ["holds", "cannot be judged"]


def test_the_best_metric_is_that_of_the_best_validation(fabricator: Any, tmp_path: Path) -> None:
    """The last evaluation is worse on both splits; the best test metric has a worse validation."""
    values = ((0.7, 0.9), (0.8, 0.85), (0.75, 0.8))
    periods = [
        {"period": at, "seconds": 1.0, "metrics": {"val_accuracy": val, "test_accuracy": test}}
        for at, (val, test) in enumerate(values)
    ]
    fabricator.run(fabricator.spec(approach="sampled", ranks=1), periods=periods, ledgers=False)
    text = (FASTER % "0.84").replace('"time"', '"best_metric"').replace('"<"', '">="')
    text = text.replace('over = { approach = "single" }\n', "")
    (one,) = judged(fabricator, tmp_path, text)
    assert one.outcomes[0].value is not None
    assert one.outcomes[0].value.value == pytest.approx(0.85)
    assert one.verdict == "holds"


def test_traffic_is_judged_per_step_and_until_the_target(fabricator: Any, tmp_path: Path) -> None:
    """100 bytes an epoch of two steps; the target is reached in the second epoch."""
    periods = [
        {"period": at, "iterations": 2, "seconds": 1.0, "bytes": {"all_reduce/sync": 100}}
        | {"metrics": {"val_accuracy": val}}
        for at, val in enumerate((0.2, 0.8, 0.8))
    ]
    fabricator.run(fabricator.spec(approach="sampled", ranks=2), periods=periods, ledgers=False)
    for quantity, wanted in (("bytes_per_step", 50.0), ("bytes_to", 200.0)):
        text = (FASTER % "201").replace('"time"', f'"{quantity}"')
        text = text.replace('over = { approach = "single" }\n', "")
        (one,) = judged(fabricator, tmp_path, text)
        assert one.outcomes[0].value is not None
        assert one.outcomes[0].value.value == wanted


def test_predictions_are_judged_by_their_intervals_and_show_their_grade(
    fabricator: Any, tmp_path: Path
) -> None:
    for approach, seconds in (("sampled", 1.0), ("single", 4.0)):
        fabricator.prediction(
            fabricator.spec(approach=approach, ranks=1), seconds=seconds, grade="datasheet"
        )
    text = (FASTER % "0.6").replace('"measured"', '"simulated"')
    (one,) = judged(fabricator, tmp_path, text)
    assert one.verdict == "holds"
    (outcome,) = one.outcomes
    assert outcome.grade == "datasheet"
    assert outcome.value is not None and outcome.value.low < 0.25 < outcome.value.high


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[claims]]\nid = "A"\nsentence = "s"\n', "A: give tests, or why there are none"),
        (FASTER.replace('"time"', '"tyme"') % "1", "unknown quantity 'tyme'"),
        (FASTER.replace("than", "then") % "1", "then: unknown key"),
        (FASTER.replace('"<"', '"="') % "1", "operator: found '='"),
    ],
)
def test_a_mistake_in_a_table_is_told(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "paper.toml"
    path.write_text(HEAD + text)
    with pytest.raises(SpecError, match=problem):
        read_paper(path)


def test_an_unknown_paper_is_told_with_those_that_are_known() -> None:
    with pytest.raises(UnknownName, match="mixgcn"):
        load_paper("mixgnc")


@pytest.mark.parametrize("name", papers())
def test_every_paper_of_the_catalogue_is_readable_and_selects_from_its_suites(name: str) -> None:
    paper = load_paper(name)
    assert 5 <= len(paper.claims) <= 8
    runs_of = {"measured": find_suite(paper.suite).runs}
    if paper.simulated:
        runs_of["simulated"] = find_suite(paper.simulated).runs
    for claim in paper.claims:
        for test in claim.tests:
            for wanted in filter(None, (test.of, test.other)):
                found = {
                    (r.dataset.name, r.model.name, r.approach, r.ranks, str(r.knobs))
                    for r in runs_of[test.side]
                    if r.approach == wanted["approach"]
                    and wanted.get("dataset", r.dataset.name) == r.dataset.name
                    and wanted.get("model", r.model.name) == r.model.name
                    and wanted.get("ranks", r.ranks) == r.ranks
                    and all(
                        r.knobs.get(key, value) == value
                        for key, value in wanted.items()
                        if key not in ("dataset", "model", "ranks", "approach")
                    )
                }
                assert found, (claim.id, wanted)


def test_the_page_shows_verdict_inequality_and_source_and_escapes(
    fabricator: Any, tmp_path: Path
) -> None:
    runs(fabricator, sampled=1.0, single=2.0)
    published = 'published = [{ says = "2 <i>times</i>", source = "table 1" }]\n[[claims.tests]]'
    text = (FASTER % "0.9").replace("[[claims.tests]]", published)
    path = tmp_path / "paper.toml"
    path.write_text(HEAD + text)
    paper = read_paper(path)
    study = read_study(fabricator.results)
    found = [
        rendering.Judged(
            paper=paper, judgements=judge(paper, study, None), commands=["gnnbench claims paper"]
        )
    ]
    html, markdown = rendering.html(found), rendering.markdown(found)
    assert "Of 1 claims of 1 paper, 1 holds, 0 hold in part" in html
    assert "<b>faster" not in html and "Sampling is &lt;b&gt;faster" in html
    assert "Published: 2 &lt;i&gt;times&lt;/i&gt; (table 1)." in html
    line = "| measured | sampled over single | time per period | 0.50× (0.48 … 0.52) |"
    assert f"{line} \\< 0.9× | yes |" in markdown
    assert "gnnbench claims paper" in markdown and found[0].judgements[0].config_hash in markdown


def test_a_published_folder_holds_every_file_that_its_page_links(
    fabricator: Any, tmp_path: Path
) -> None:
    """Ledgers are there as sums per period: two equal periods of a run have the steps of one."""
    for approach, took in (("sampled", 1.0), ("single", 2.0)):
        fabricator.run(fabricator.spec(approach=approach, ranks=1), seconds=took)
    path = tmp_path / "paper.toml"
    path.write_text(HEAD + FASTER % "0.9")
    paper, study = read_paper(path), read_study(fabricator.results)
    (one,) = judge(paper, study, None)
    cited = tuple(evidence.cited(one, {"measured": study, "simulated": None}))
    root, out = fabricator.results.folder, tmp_path / "out"
    assert publish(cited, root, out) == 4
    found = rendering.Judged(
        paper=paper, judgements=[one], commands=[], cited={"A": cited}, root=root, published=True
    )
    addresses = re.findall(r'href="([^"#]+)"', rendering.html([found]))
    assert len(addresses) == 4
    assert all((out / unquote(address)).is_file() for address in addresses)
    sums = pd.read_csv(out / unquote(next(a for a in addresses if a.endswith("sums.csv"))))
    whole = pd.read_csv(next(root.glob("runs/*sampled*/ledger-rank0.csv")))
    assert sums["seconds"].sum() == pytest.approx(
        whole["duration_s"].sum() / whole["period"].nunique(), rel=1e-4
    )
    assert all(address in rendering.markdown([found]) for address in addresses)


def test_the_command_judges_what_a_folder_holds_without_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "claims"
    assert main(["claims", "mixgcn", "--results", str(folder), "--no-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (paper,) = document["papers"]
    assert {claim["verdict"] for claim in paper["claims"]} == {"cannot be judged"}
    assert (folder / "claims.html").is_file() and (folder / "claims.md").is_file()
