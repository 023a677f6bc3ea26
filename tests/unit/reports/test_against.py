"""Two folders, or two machines, compared configuration by configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gnnbench.cli import main


@pytest.fixture
def two(make_fabricator: Callable[[str], Any]) -> tuple[Any, Any]:
    return make_fabricator("first"), make_fabricator("second")


def filled(fabricator: Any, **times: float) -> str:
    for approach, seconds in times.items():
        for repeat in (0, 1):
            spec = fabricator.spec(approach=approach, ranks=1, repeat=repeat)
            fabricator.run(spec, seconds=seconds, ledgers=False)
    return str(fabricator.results.folder)


def test_what_got_slower_is_told_with_the_noise(
    two: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    first = filled(two[0], single=1.0, sampled=2.0, mixture=1.0)
    second = filled(two[1], single=1.5, sampled=2.02, bns=1.0)
    assert main(["compare", first, second]) == 0
    out = capsys.readouterr().out
    assert "the time of 2 configurations is 1.23× in the geometric mean (1.01× to 1.50×)" in out
    assert "1 slower and 0 faster than the noise, 1 the same." in out
    assert f"1 configuration only in {first}." in out
    assert f"1 configuration only in {second}." in out
    assert "(a made-up processor)" in out


def test_past_the_threshold_the_exit_code_says_so(
    two: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = filled(two[0], single=1.0), filled(two[1], single=1.3)
    assert main(["compare", first, second, "--threshold", "40%"]) == 0
    assert main(["compare", first, second, "--threshold", "20%"]) == 1
    out = capsys.readouterr().out
    assert "1 of 1 configurations are slower by more than 20 %" in out
    assert main(["compare", second, first, "--threshold", "0"]) == 0  # faster is fine


def test_a_threshold_below_the_noise_is_not_passed_by_noise(two: tuple[Any, Any]) -> None:
    first, second = filled(two[0], single=1.0), filled(two[1], single=1.02)
    assert main(["compare", first, second, "--threshold", "1"]) == 0


def test_folders_with_nothing_in_common_are_refused(
    two: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = filled(two[0], single=1.0), filled(two[1], sampled=1.0)
    assert main(["compare", first, second]) == 2
    assert "has no configuration in common with" in capsys.readouterr().err


def test_two_machines_of_one_folder(fabricator: Any, capsys: pytest.CaptureFixture[str]) -> None:
    spec = fabricator.spec(ranks=2)
    fabricator.prediction(spec, seconds=1.0, cluster="slow")
    fabricator.prediction(spec, seconds=0.25, cluster="quick")
    folder = str(fabricator.results.folder)
    assert main(["compare", folder, "--cluster", "slow", "--against", "quick", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (change,) = document["changes"]
    assert (document["first"], document["second"]) == ("slow", "quick")
    assert (change["ratio"], change["word"], change["side"]) == (0.25, "faster", "predicted")
    back = ["compare", folder, "--cluster", "quick", "--against", "slow", "--threshold", "50"]
    assert main(back) == 1


def test_of_one_folder_the_threshold_is_for_the_error_of_predictions(
    fabricator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = fabricator.spec(ranks=2)
    fabricator.run(spec, seconds=1.0)
    folder = str(fabricator.results.folder)
    assert main(["compare", folder, "--threshold", "10"]) == 2
    assert "nothing was both measured and predicted" in capsys.readouterr().err
    fabricator.prediction(spec, seconds=1.2)
    assert main(["compare", folder, "--threshold", "30"]) == 0
    assert main(["compare", folder, "--threshold", "10"]) == 1
    assert "the median error is larger than 10 % (--threshold)" in capsys.readouterr().out
