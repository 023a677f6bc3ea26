"""Read the claims of a paper from its table in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gnnbench
from gnnbench.errors import UnknownName
from gnnbench.strict import build, choices, raise_all, read_toml

FOLDER = Path(gnnbench.__file__).parent / "catalogue" / "claims"
SCHEMA = 1
SIDES = ("measured", "simulated")
OPERATORS = ("<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """An inequality: a quantity of one configuration, over or minus that of another, and a bound.

    Args:
        says: what is compared, in words.
        side: of measured runs, or of predictions at the paper's scale.
        quantity: a name of `quantities.QUANTITIES`.
        of: what selects the configuration: dataset, model, approach, ranks, and knobs by name.
        over: of the configuration that it is divided by; `minus` the one that is subtracted.
        operator: written `is` in the table.
        than: the bound.
    """

    __test__ = False

    says: str
    side: str = field(metadata=choices(*SIDES))
    quantity: str
    of: dict[str, Any]
    over: dict[str, Any] = field(default_factory=dict)
    minus: dict[str, Any] = field(default_factory=dict)
    operator: str = field(metadata=choices(*OPERATORS))
    than: float

    @property
    def other(self) -> Mapping[str, Any]:
        return self.over or self.minus


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A figure of the paper, or of one that repeated its experiment."""

    says: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A sentence of a paper in our words; without tests, `unjudged` says why it has none."""

    id: str
    sentence: str
    tests: tuple[Test, ...] = ()
    published: tuple[Published, ...] = ()
    unjudged: str = ""
    limits: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paper:
    """The claims of a paper, and the suites whose results judge them.

    Args:
        suite: run on this machine, and nothing else is measured.
        simulated: a suite that is predicted at the paper's scale; "" for none.
        clusters: for which it is predicted.
    """

    name: str
    title: str
    reference: str
    suite: str
    simulated: str = ""
    clusters: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()


def papers() -> list[str]:
    """Names of the papers whose claims are in the catalogue."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_paper(name: str) -> Paper:
    """Return a paper of the catalogue. Raises UnknownName."""
    if name not in papers():
        raise UnknownName("paper", name, papers())
    return read_paper(FOLDER / f"{name}.toml")


def read_paper(path: Path) -> Paper:
    """Return the paper of a file. Raises SpecError with every problem of it."""
    from gnnbench_reports.claims.quantities import QUANTITIES

    table = read_toml(path)
    problems: list[str] = []
    if table.pop("schema", None) != SCHEMA:
        problems.append(f"{path.name}: schema: expected {SCHEMA}")
    claims = [
        _claim(entry, f"{path.name}: claims[{at}]", problems)
        for at, entry in enumerate(table.pop("claims", []))
    ]
    paper = build(Paper, {**table, "name": path.stem}, path.name, problems)
    known = [claim for claim in claims if claim is not None]
    for claim in known:
        if bool(claim.tests) == bool(claim.unjudged):
            problems.append(f"{path.name}: {claim.id}: give tests, or why there are none")
        problems += [
            f"{path.name}: {claim.id}: unknown quantity {test.quantity!r}"
            for test in claim.tests
            if test.quantity not in QUANTITIES
        ]
        problems += [
            f"{path.name}: {claim.id}: give over or minus, not both: {test.says}"
            for test in claim.tests
            if test.over and test.minus
        ]
    raise_all(problems)
    assert paper is not None, "a table without problems makes a paper"
    return Paper(
        name=paper.name,
        title=paper.title,
        reference=paper.reference,
        suite=paper.suite,
        simulated=paper.simulated,
        clusters=paper.clusters,
        claims=tuple(known),
    )


def _claim(entry: Any, where: str, problems: list[str]) -> Claim | None:
    table = dict(entry) if isinstance(entry, Mapping) else {}
    tests = [
        build(Test, _renamed(test), f"{where}.tests[{at}]", problems)
        for at, test in enumerate(table.pop("tests", []))
    ]
    published = [
        build(Published, one, f"{where}.published[{at}]", problems)
        for at, one in enumerate(table.pop("published", []))
    ]
    claim = build(Claim, table, where, problems)
    if claim is None:
        return None
    return Claim(
        id=claim.id,
        sentence=claim.sentence,
        tests=tuple(test for test in tests if test is not None),
        published=tuple(one for one in published if one is not None),
        unjudged=claim.unjudged,
        limits=claim.limits,
    )


def _renamed(table: Any) -> Any:
    """`is` is a word of Python, so the field has another name."""
    if not isinstance(table, Mapping):
        return table
    return {("operator" if key == "is" else key): value for key, value in table.items()}
