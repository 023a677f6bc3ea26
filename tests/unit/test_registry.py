"""Names: what is built in, what others add, and what is answered to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from gnnbench.approaches.base import Approach
from gnnbench.approaches.names import APPROACHES
from gnnbench.errors import UnknownName
from gnnbench.models.base import Model
from gnnbench.models.names import MODELS


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Entry points by name, as if a package had brought them."""
    added: dict[str, str] = {}

    def entry_points(*, group: str) -> list[EntryPoint]:
        return [EntryPoint(name, value, group) for name, value in added.items()]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry._known.cache_clear()
    registry._load.cache_clear()
    yield added
    registry._known.cache_clear()
    registry._load.cache_clear()


@pytest.mark.parametrize("name", sorted(registry.APPROACHES))
def test_a_built_in_approach_is_what_its_name_says(name: str) -> None:
    card = APPROACHES.get(name)
    assert isinstance(card, Approach)
    assert card.name == name
    module, _, trainer = card.runtime.partition(":")
    assert module.startswith("gnnbench_runtime.approaches.")
    assert trainer.isidentifier()
    for words in (card.title, card.summary, card.paper):
        assert words
        assert "\n" not in words


@pytest.mark.parametrize("name", sorted(registry.MODELS))
def test_a_built_in_model_is_what_its_name_says(name: str) -> None:
    card = MODELS.get(name)
    assert isinstance(card, Model)
    assert card.name == name


def test_the_same_card_is_returned_every_time() -> None:
    assert APPROACHES.get("single") is APPROACHES.get("single")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("singel", "unknown approach 'singel': did you mean 'single'?"),
        ("x", f"unknown approach 'x': allowed: {', '.join(sorted(registry.APPROACHES))}"),
    ],
)
def test_an_unknown_approach_is_answered(name: str, answer: str) -> None:
    with pytest.raises(UnknownName) as caught:
        APPROACHES.get(name)
    assert str(caught.value) == answer


def test_an_unknown_model_is_answered() -> None:
    with pytest.raises(UnknownName, match="unknown model 'gnc': did you mean 'gcn'"):
        MODELS.get("gnc")


def test_an_entry_point_adds_an_approach(third_party: dict[str, str]) -> None:
    third_party["mine"] = "gnnbench.approaches.whole_graph.single:APPROACH"
    assert APPROACHES.names() == sorted(["mine", *registry.APPROACHES])
    assert APPROACHES.get("mine") is APPROACHES.get("single")


def test_an_entry_point_adds_a_model(third_party: dict[str, str]) -> None:
    third_party["mine"] = "gnnbench.models.sage:MODEL"
    assert MODELS.get("mine").self_weight


def test_nobody_can_replace_what_is_built_in(third_party: dict[str, str]) -> None:
    third_party["single"] = "gnnbench.approaches.mini_batch.sampled:APPROACH"
    assert APPROACHES.get("single").name == "single"


def test_nothing_is_imported_before_it_is_asked_for(third_party: dict[str, str]) -> None:
    third_party["broken"] = "no_such_package_of_anyone:APPROACH"
    assert "broken" in APPROACHES.names()
    assert APPROACHES.get("single").name == "single"
    with pytest.raises(ModuleNotFoundError):
        APPROACHES.get("broken")
