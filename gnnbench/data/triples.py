"""Triples: facts (head, relation, tail) of a knowledge graph, with their splits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.dataset import out_of_range, present
from gnnbench.errors import DataError, SpecError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Triples:
    """Facts (head, relation, tail): training facts first, then validation, then test.

    Shapes: T facts. `heads`, `relations` and `tails` int32 [T]. `entity_names` and
    `relation_names` are uint8: UTF-8 text with one name a line, in the order of the ids; None
    where the data has numbers only.

    Args:
        num_entities: ids of heads and tails are 0..num_entities-1.
        num_relations: ids of relations are 0..num_relations-1.
        train_end: facts 0..train_end-1 train.
        val_end: facts train_end..val_end-1 validate, and the rest test.
        own_split: whether the split came with the data.
    """

    kind: ClassVar[str] = "triples"
    ARRAYS: ClassVar[tuple[str, ...]] = (
        "heads",
        "relations",
        "tails",
        "entity_names",
        "relation_names",
    )
    PLAIN: ClassVar[Mapping[str, type]] = MappingProxyType(
        {
            "num_entities": int,
            "num_relations": int,
            "train_end": int,
            "val_end": int,
            "own_split": bool,
        }
    )

    name: str
    heads: NDArray[np.int32]
    relations: NDArray[np.int32]
    tails: NDArray[np.int32]
    num_entities: int
    num_relations: int
    train_end: int
    val_end: int
    entity_names: NDArray[np.uint8] | None = None
    relation_names: NDArray[np.uint8] | None = None
    own_split: bool = True
    notes: dict[str, object] = field(default_factory=dict)
    digest: str = ""

    def __post_init__(self) -> None:
        lengths = {name: len(getattr(self, name)) for name in self.ARRAYS[:3]}
        if len(set(lengths.values())) > 1:
            raise DataError(self.name, f"arrays of unlike lengths: {lengths}")

    @property
    def num_triples(self) -> int:
        return len(self.heads)

    @property
    def num_nodes(self) -> int:
        """The entities, as what a graph calls nodes."""
        return self.num_entities

    def part(self, split: str) -> slice:
        """Positions of the facts of "train", "val" or "test"."""
        borders = {
            "train": (0, self.train_end),
            "val": (self.train_end, self.val_end),
            "test": (self.val_end, self.num_triples),
        }
        return slice(*borders[split])

    def arrays(self) -> dict[str, Any]:
        return present(self, self.ARRAYS)

    def facts(self) -> dict[str, Any]:
        return {
            "num_entities": self.num_entities,
            "num_relations": self.num_relations,
            "num_triples": self.num_triples,
            "num_train": self.train_end,
            "num_val": self.val_end - self.train_end,
            "num_test": self.num_triples - self.val_end,
        }

    def miniature(self, num_nodes: int) -> Triples:
        """Up to 16 facts a node of every split, entities folded onto fewer; all relations stay."""
        n = min(num_nodes, self.num_entities)
        parts = [self.part(split) for split in ("train", "val", "test")]
        counts = [min(16 * n, part.stop - part.start) for part in parts]
        kept = np.concatenate(
            [np.arange(p.start, p.start + c) for p, c in zip(parts, counts, strict=True)]
        )
        arrays: dict[str, Any] = {
            "heads": np.asarray(self.heads)[kept] % max(n, 1),
            "relations": np.asarray(self.relations)[kept],
            "tails": np.asarray(self.tails)[kept] % max(n, 1),
        }
        for array in arrays.values():
            array.flags.writeable = False
        return dataclasses.replace(
            self,
            digest="",
            num_entities=n,
            entity_names=None,
            train_end=counts[0],
            val_end=counts[0] + counts[1],
            **arrays,
        )

    def problems(self) -> list[str]:
        found = [*out_of_range("heads", self.heads, 0, self.num_entities)]
        found += out_of_range("relations", self.relations, 0, self.num_relations)
        found += out_of_range("tails", self.tails, 0, self.num_entities)
        if not 0 <= self.train_end <= self.val_end <= self.num_triples:
            ends = f"{self.train_end} and {self.val_end}"
            found.append(f"split: ends at {ends}, allowed rising ends in 0..{self.num_triples}")
        for what, names, count in (
            ("entity_names", self.entity_names, self.num_entities),
            ("relation_names", self.relation_names, self.num_relations),
        ):
            lines = 0 if names is None else int(np.count_nonzero(names == ord("\n"))) + bool(count)
            if names is not None and lines != count:
                found.append(f"{what}: {lines} names, expected {count}")
        return found

    def check(self) -> None:
        found = self.problems()
        if found:
            raise DataError(self.name, found)

    def cannot_train(self, task: str) -> str | None:
        for split, aim in (("train", "train"), ("val", "validate"), ("test", "test")):
            part = self.part(split)
            if part.stop == part.start:
                return (
                    f"triples {self.name}: none to {aim} on: set "
                    "split = { train = 0.8, val = 0.1, replace = true }"
                )
        return None


def packed_names(names: Sequence[str]) -> NDArray[np.uint8]:
    """Names as Triples stores them. Raises DataError for one that holds a line break."""
    broken = next((name for name in names if "\n" in name), None)
    if broken is not None:
        raise DataError(repr(broken), "contains a line break, which a name must not")
    return np.frombuffer("\n".join(names).encode(), np.uint8)


def unpacked_names(packed: NDArray[np.uint8] | None) -> list[str]:
    """The names that `packed_names` stored; empty without any."""
    text = b"" if packed is None else np.asarray(packed).tobytes()
    return text.decode().split("\n") if text else []


def random_split(
    triples: Triples,
    train: float = 0.8,
    val: float = 0.1,
    seed: int = 0,
    *,
    replace: bool = False,
) -> Triples:
    """Return the triples with a random split; facts outside of `train` and `val` form the test set.

    Triples with a split of their own are an error unless `replace` is true.
    """
    if triples.own_split and not replace:
        raise SpecError(
            f"split: {triples.name} brings a split of its own; leave `split` out, or set "
            "split = { replace = true, ... }"
        )
    if not (train >= 0 and val >= 0 and train + val <= 1):
        raise SpecError(f"split: found train {train}, val {val}; allowed shares >= 0 with sum <= 1")
    count = triples.num_triples
    order = np.random.default_rng(seed).permutation(count)
    ends = round(train * count), min(round(train * count) + round(val * count), count)
    # Within a split facts keep the order of the files, which is what readers of a disk like.
    order = np.concatenate([np.sort(part) for part in np.split(order, ends)])
    return dataclasses.replace(
        triples,
        heads=triples.heads[order],
        relations=triples.relations[order],
        tails=triples.tails[order],
        train_end=ends[0],
        val_end=ends[1],
        own_split=False,
    )
