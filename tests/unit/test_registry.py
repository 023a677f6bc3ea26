"""Names: what is built in, what others add, and what is answered to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from gnnbench import registry
from gnnbench.approaches.base import Approach
from gnnbench.approaches.names import APPROACHES, knob_names
from gnnbench.errors import SpecError, UnknownName
from gnnbench.models.base import Model
from gnnbench.models.names import MODELS
from gnnbench.registry import Names


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Entry points by name, as if a package had brought them."""
    added: dict[str, str] = {}

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint(name, value, group) for name, value in added.items()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    MODELS.forget()
    APPROACHES.forget()
    yield added
    monkeypatch.undo()
    MODELS.forget()
    APPROACHES.forget()


@pytest.mark.parametrize("name", APPROACHES.names())
def test_an_approach_is_what_its_name_says(name: str) -> None:
    card = APPROACHES.get(name)
    assert isinstance(card, Approach)
    assert card.name == name
    module, _, trainer = card.runtime.partition(":")
    assert module.startswith(f"gnnbench_runtime.approaches.{card.family}.")
    assert trainer.isidentifier()
    for words in (card.title, card.summary, card.paper, card.promise.text):
        assert words
        assert "\n" not in words


@pytest.mark.parametrize("name", APPROACHES.names())
def test_the_examples_of_an_approach_are_runs_that_it_can_do(name: str) -> None:
    card = APPROACHES.get(name)
    examples = card.examples()
    assert examples
    for run in examples:
        assert run.approach == name
        assert card.problems(run) == []
        assert card.cannot_run(run) is None
        # The same knobs, written in a suite.
        problems: list[str] = []
        assert card.parse_knobs(run.knobs, "knobs", problems) == run.knobs, problems


def test_no_two_approaches_look_alike() -> None:
    looks = [APPROACHES.get(name).look for name in APPROACHES.names()]
    assert len(set(looks)) == len(looks)


def test_every_knob_is_known_with_its_owners() -> None:
    known = knob_names()
    assert known["reset_optimizer"] == ["gist"]
    assert "sampled" in known["prefetch"]
    assert {"partition", "bns", "pipegcn"} <= set(known["partitioner"])


@pytest.mark.parametrize("name", MODELS.names())
def test_a_model_is_what_its_name_says(name: str) -> None:
    card = MODELS.get(name)
    assert isinstance(card, Model)
    assert card.name == name


def test_the_same_card_is_returned_every_time() -> None:
    assert APPROACHES.get("single") is APPROACHES.get("single")


@pytest.mark.parametrize(
    ("names", "asked", "answer"),
    [
        (APPROACHES, "singel", "unknown approach 'singel': did you mean 'single'?"),
        (APPROACHES, "x", f"unknown approach 'x': allowed: {', '.join(APPROACHES.names())}"),
        (MODELS, "gcnn", "unknown model 'gcnn': did you mean 'gcn'?"),
    ],
)
def test_an_unknown_name_is_answered(names: Names[object], asked: str, answer: str) -> None:
    with pytest.raises(UnknownName) as caught:
        names.get(asked)
    assert str(caught.value) == answer


def test_an_entry_point_adds_a_name(third_party: dict[str, str]) -> None:
    before = [*APPROACHES.names(), "mine"]
    APPROACHES.forget()
    third_party["mine"] = "gnnbench.approaches.whole_graph.single:APPROACH"
    assert APPROACHES.names() == sorted(before)
    assert APPROACHES.get("mine") is APPROACHES.get("single")


@pytest.mark.parametrize(
    "tables",
    [
        ({"a": "some.module:A"}, {"a": "other.module:A"}),  # two families
        ({"mine": "some.module:A"},),  # a family and a third party
    ],
)
def test_a_name_that_is_taken_is_an_error(
    third_party: dict[str, str], tables: tuple[dict[str, str], ...]
) -> None:
    third_party["mine"] = "third.party:A"
    names: Names[object] = Names("approach", "group", *tables)
    with pytest.raises(SpecError, match=r"is defined twice, by some\.module:A and by "):
        names.names()


def test_nothing_is_imported_before_it_is_asked_for(third_party: dict[str, str]) -> None:
    third_party["broken"] = "no_such_package_of_anyone:APPROACH"
    assert "broken" in APPROACHES.names()
    assert APPROACHES.get("single").name == "single"
    with pytest.raises(ModuleNotFoundError):
        APPROACHES.get("broken")
