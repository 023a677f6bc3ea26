"""Triples: names, splits, invariants, miniature, native form, generator, profile."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench.data import generators
from gnnbench.data.formats import native
from gnnbench.data.profile import load_profile, save_profile
from gnnbench.data.triples import Triples, packed_names, random_split, unpacked_names
from gnnbench.data.triples_profile import profile_triples
from gnnbench.errors import DataError, SpecError

NAMES = st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), min_size=1)


def triples(facts: list[tuple[int, int, int]], ends: tuple[int, int], **fields) -> Triples:
    heads, relations, tails = np.array(facts, np.int32).reshape(-1, 3).T.copy()
    return Triples(
        name="t",
        heads=heads,
        relations=relations,
        tails=tails,
        train_end=ends[0],
        val_end=ends[1],
        **{"num_entities": 4, "num_relations": 2, **fields},
    )


@given(st.lists(NAMES, max_size=5), st.data())
def test_triples_survive_their_native_form(tmp_path_factory, names: list[str], data) -> None:
    count = len(names)
    ids = st.integers(0, max(count - 1, 0))
    facts = data.draw(st.lists(st.tuples(ids, st.just(0), ids), max_size=9 if count else 0))
    made = triples(
        facts,
        (len(facts) // 2, len(facts)),
        num_entities=count,
        num_relations=1,
        entity_names=packed_names(names),
    )
    folder = tmp_path_factory.mktemp("t") / "native"
    back = native.load(native.save(made, folder), verify=True)
    assert made.problems() == []
    assert unpacked_names(back.entity_names) == names
    for name in (*Triples.ARRAYS, *Triples.PLAIN, "name"):
        np.testing.assert_array_equal(getattr(back, name), getattr(made, name))


def test_a_name_with_a_line_break_is_refused() -> None:
    with pytest.raises(DataError, match="line break"):
        packed_names(["a", "b\nc"])


def test_every_broken_invariant_is_a_line() -> None:
    broken = triples(
        [(0, 0, 1), (4, 0, 1), (0, 2, -1)], (2, 1), entity_names=packed_names(["a", "b"])
    )
    assert broken.problems() == [
        "heads: found 4 at 1, allowed 0..3",
        "relations: found 2 at 2, allowed 0..1",
        "tails: found -1 at 2, allowed 0..3",
        "split: ends at 2 and 1, allowed rising ends in 0..3",
        "entity_names: 2 names, expected 4",
    ]


def test_a_random_split_keeps_every_fact_once_and_own_ones_unless_replaced() -> None:
    facts = [(i % 4, i % 2, (i * 3) % 4) for i in range(20)]
    own = triples(facts, (20, 20))
    assert "none to validate" in (own.cannot_train("") or "")
    with pytest.raises(SpecError, match="of its own"):
        random_split(own)
    found = random_split(own, 0.5, 0.25, seed=1, replace=True)
    assert (found.train_end, found.val_end) == (10, 15)
    back = sorted(zip(found.heads, found.relations, found.tails, strict=True))
    assert back == sorted(facts)


def test_generated_facts_are_distinct_and_relations_come_with_their_inverse() -> None:
    options = {"num_entities": 50, "num_relations": 4, "num_triples": 500, "spread": 0}
    with pytest.raises(SpecError, match=r"allowed 1\.\.200"):
        generators.generate("synthetic_triples", **options)
    data = generators.generate("synthetic_triples", **{**options, "num_triples": 200})
    assert data.problems() == []
    facts = set(zip(*(a.tolist() for a in (data.heads, data.relations, data.tails)), strict=True))
    assert len(facts) == 200
    # With all facts drawn and no spread, relation 2k + 1 is the inverse of 2k.
    assert {(t, r ^ 1, h) for h, r, t in facts} == facts
    assert (data.train_end, data.val_end) == (160, 180)


def test_a_miniature_keeps_all_relations_and_all_splits() -> None:
    data = generators.generate(
        "synthetic_triples", num_entities=500, num_relations=7, num_triples=4000
    )
    small = data.miniature(10)
    assert small.problems() == []
    assert small.cannot_train("") is None
    assert (small.num_entities, small.num_relations) == (10, 7)
    assert [small.facts()[f"num_{split}"] for split in ("train", "val", "test")] == [160] * 3
    assert small.heads.dtype == np.int32


def test_a_profile_counts_training_facts_and_survives_its_file(tmp_path: Path) -> None:
    data = triples([(0, 0, 1), (0, 0, 2), (1, 1, 0), (3, 0, 1), (0, 1, 2)], (3, 4))
    found = profile_triples(data)
    assert (found.num_unseen, found.tails_per_head, found.heads_per_tail) == (1, 1.5, 1.0)
    assert (found.degree_values, found.degree_counts) == ((0.0, 1.0, 2.0, 3.0), (1, 1, 1, 1))
    assert (found.relation_values, found.relation_counts) == ((1.0, 2.0), (1, 1))
    file = save_profile(found, tmp_path / "t.toml")
    assert load_profile(file) == found
    file.write_text(file.read_text().replace('kind = "triples"', 'kind = "tripels"'))
    with pytest.raises(SpecError, match="did you mean 'triples'"):
        load_profile(file)
    with pytest.raises(SpecError, match="together not num_triples"):
        dataclasses.replace(found, num_val=9)
