"""The strict loader: every problem of a table at once, each with what is allowed."""

from __future__ import annotations

import datetime
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gnnbench.errors import SpecError
from gnnbench.strict import bounds, build, choices, raise_all, read_toml

# Machines are shared: how long an example takes says nothing.
RELAXED = settings(suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True, kw_only=True)
class Wheel:
    size: int = field(default=20, metadata=bounds(1, 30))
    maker: str = ""


@dataclass(frozen=True, kw_only=True)
class Bicycle:
    name: str
    gears: int = field(default=1, metadata=bounds(1))
    weight: float = field(default=9.5, metadata=bounds(0, 100))
    load: float = field(default=0.0, metadata=bounds(0, 1, open_high=True))
    colour: str = field(default="red", metadata=choices("red", "green", "blue"))
    bell: bool = False
    front: Wheel = field(default_factory=Wheel)
    spare: tuple[Wheel, ...] = ()
    stages: tuple[int, ...] = field(default=(), metadata=bounds(1, 9))
    rider: int | tuple[int, ...] = field(default=1, metadata=bounds(1))
    note: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def load(table: object) -> tuple[Bicycle | None, list[str]]:
    problems: list[str] = []
    return build(Bicycle, table, "b.toml", problems), problems


def problem_of(**table: object) -> str:
    made, (problem,) = load({"name": "n", **table})
    assert made is None
    return problem


def test_what_is_left_out_has_its_default() -> None:
    assert load({"name": "n"}) == (Bicycle(name="n"), [])


def test_a_full_table_becomes_nested_dataclasses_and_tuples() -> None:
    table = {"name": "n", "front": {"size": 28}, "spare": [{"maker": "m"}], "stages": [1, 2]}
    made, problems = load(table)
    assert problems == []
    assert made == Bicycle(name="n", front=Wheel(size=28), spare=(Wheel(maker="m"),), stages=(1, 2))


@RELAXED
@given(
    st.builds(
        Bicycle,
        name=st.text(),
        gears=st.integers(1, 10**9),
        weight=st.floats(0, 100),
        load=st.floats(0, 1, exclude_max=True),
        colour=st.sampled_from(["red", "green", "blue"]),
        bell=st.booleans(),
        front=st.builds(Wheel, size=st.integers(1, 30)),
        spare=st.lists(st.builds(Wheel, size=st.integers(1, 30)), max_size=3).map(tuple),
        stages=st.lists(st.integers(1, 9)).map(tuple),
        rider=st.one_of(st.integers(1), st.lists(st.integers(1)).map(tuple)),
        note=st.none() | st.text(),
    )
)
def test_what_is_valid_comes_back_equal(bicycle: Bicycle) -> None:
    assert load(asdict(bicycle)) == (bicycle, [])


@RELAXED
@given(
    st.text(string.ascii_lowercase, min_size=1).filter(lambda k: k not in asdict(Bicycle(name="")))
)
def test_an_unknown_key_is_always_a_problem(key: str) -> None:
    assert problem_of(**{key: 1}).startswith(f"b.toml.{key}: unknown key, ")


def test_an_unknown_key_is_answered_with_what_was_meant() -> None:
    assert problem_of(colours="red") == "b.toml.colours: unknown key, did you mean 'colour'?"
    assert problem_of(zzz=1).endswith(f"allowed: {', '.join(sorted(asdict(Bicycle(name=''))))}")


def test_a_missing_key_says_what_is_expected() -> None:
    assert load({})[1] == ["b.toml.name: missing, expected text"]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("name", 3, "found 3, expected text"),
        ("gears", "3", "found '3', expected a whole number"),
        ("gears", 3.0, "found 3.0, expected a whole number"),
        ("gears", True, "found True, expected a whole number"),
        ("weight", "heavy", "found 'heavy', expected a number"),
        ("weight", False, "found False, expected a number"),
        ("bell", 1, "found 1, expected true or false"),
        ("bell", "true", "found 'true', expected true or false"),
        ("front", 28, "found 28, expected a table"),
        ("spare", {"size": 1}, "found {'size': 1}, expected a list"),
        ("stages", 3, "found 3, expected a list"),
        ("extra", [1], "found [1], expected a table"),
        ("note", 3, "found 3, expected text"),
        ("rider", "me", "found 'me', expected a whole number"),
        ("name", ["x" * 100], "expected text"),
    ],
)
def test_a_wrong_type_says_what_was_found_and_expected(
    key: str, value: object, problem: str
) -> None:
    said = problem_of(**{key: value})
    assert said.startswith(f"b.toml.{key}: ")
    assert problem in said
    assert len(said) < 120


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("gears", 0, ">= 1"),
        ("weight", 100.5, ">= 0 and <= 100"),
        ("load", 1.0, ">= 0 and < 1"),
        ("load", 1, ">= 0 and < 1"),
        ("rider", 0, ">= 1"),
    ],
)
def test_a_number_out_of_bounds_says_the_bounds(key: str, value: float, allowed: str) -> None:
    # A whole number is a number: it is shown as the number it became.
    assert problem_of(**{key: value}).endswith(f", allowed {allowed}")


@RELAXED
@given(st.integers(), st.integers(-100, 100), st.integers(-100, 100))
def test_bounds_hold_exactly(value: int, low: int, high: int) -> None:
    @dataclass(frozen=True)
    class Bounded:
        x: int = field(default=0, metadata=bounds(low, high))

    problems: list[str] = []
    build(Bounded, {"x": value}, "w", problems)
    assert (problems == []) == (low <= value <= high)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_is_finite(value: float) -> None:
    assert problem_of(weight=value) == f"b.toml.weight: found {value}, expected a finite number"
    said = problem_of(extra={"a": {"b": [1.0, value]}})
    assert said == f"b.toml.extra.a.b[1]: found {value}, expected a finite number"


def test_a_free_table_holds_only_what_a_record_can() -> None:
    said = problem_of(extra={"since": datetime.date(2024, 1, 2)})
    assert said.startswith("b.toml.extra.since: found datetime.date(2024, 1, 2), expected text")
    assert load({"name": "n", "extra": {"a": [1, "b", True, {"c": 2.5}]}})[1] == []


def test_a_choice_suggests_the_nearest() -> None:
    assert problem_of(colour="gren") == "b.toml.colour: found 'gren', did you mean 'green'?"
    assert problem_of(colour="x") == "b.toml.colour: found 'x', allowed: blue, green, red"


def test_an_item_is_named_by_its_place() -> None:
    assert problem_of(stages=[1, 10]) == "b.toml.stages[1]: found 10, allowed >= 1 and <= 9"
    assert problem_of(rider=[1, "x"]).startswith("b.toml.rider")
    said = problem_of(spare=[{}, {"sise": 3}])
    assert said == "b.toml.spare[1].sise: unknown key, did you mean 'size'?"
    assert problem_of(front={"size": 99}) == "b.toml.front.size: found 99, allowed >= 1 and <= 30"


def test_all_problems_are_told_in_one_go() -> None:
    table = {"gears": 0, "weight": "x", "colour": "pink", "front": {"a": 1, "size": 0}, "bel": 1}
    made, problems = load(table)
    assert made is None
    wrong = ("name", "gears", "weight", "colour", "front.a", "front.size", "bel")
    assert {line.split(":")[0] for line in problems} == {f"b.toml.{key}" for key in wrong}
    with pytest.raises(SpecError) as caught:
        raise_all(problems)
    assert list(caught.value.problems) == problems
    assert str(caught.value).count("\n") == len(problems) - 1


def test_no_problem_raises_nothing() -> None:
    raise_all([])


def test_a_list_instead_of_a_table_is_a_problem() -> None:
    assert load([1]) == (None, ["b.toml: found [1], expected a table"])


def test_a_class_may_refuse_what_its_fields_allow() -> None:
    @dataclass(frozen=True)
    class Even:
        x: int = 0

        def __post_init__(self) -> None:
            if self.x % 2:
                raise SpecError(["x: odd", "x: not even"])

    problems: list[str] = []
    assert build(Even, {"x": 3}, "w", problems) is None
    assert problems == ["w: x: odd", "w: x: not even"]


@RELAXED
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*asdict(Bicycle(name="")), "x"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_no_table_at_all_raises_anything_but_tells_its_problems(table: object) -> None:
    made, problems = load(table)
    assert (made is None) == bool(problems)
    if not isinstance(table, Mapping):
        assert problems


# Files


def test_a_file_that_is_no_toml_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("a = 1\nb = \n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"not valid TOML: .*line 2") as caught:
        read_toml(path)
    assert str(caught.value).startswith(str(path))


def test_an_absent_or_binary_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot read: No such file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="not valid TOML"):
        read_toml(tmp_path / "b.toml")


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "windows.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\n")
    assert read_toml(path) == {"a": 1}
