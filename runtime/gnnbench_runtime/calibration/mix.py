"""Choice of the approach that trains each probe workload.

Each card offers runs for a workload (`Approach.probes`); the offer is chosen that performs the
operation with the fewest samples so far. Operations that no offer covers are then measured with the
examples of the approaches that need them, on probe workloads instead of their own.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence

from gnnbench.approaches.base import Probe
from gnnbench.approaches.mini_batch.base import MiniBatch
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.operations import Operations, is_drawn_graph, needed, operations
from gnnbench.spec import DatasetRef, RunSpec
from gnnbench_runtime.calibration.workloads import (
    DRAWN_LARGE_EVERY,
    KINDS,
    Workload,
    drawn_batches,
    workload,
)

LEAST_SAMPLES = 4
"""Samples that a fit needs of an operation."""
MOST_MORE = 20
"""Workloads that are tried for an operation that lacks samples."""


class Mix:
    """The probes of one co-location.

    Args:
        approaches: whose operations are calibrated.
        ranks: that probe together.
        threads, epochs, seed: see `workloads.workload`.
        device: "cpu" or "cuda".
    """

    def __init__(
        self,
        approaches: Sequence[str],
        *,
        ranks: int = 1,
        threads: int = 1,
        epochs: int = 6,
        seed: int = 1,
        device: str = "cpu",
    ) -> None:
        self.ranks, self.device, self.seed = ranks, device, seed
        self.threads, self.epochs = threads, epochs
        self.needed = needed(approaches, device)
        self.samples: Counter[str] = Counter()
        self._alone: frozenset[str] = frozenset()
        self._known: dict[str, Operations] = {}

    def probes(self, count: int, samples: int = LEAST_SAMPLES) -> list[Workload]:
        """Return `count` probes from the offers of all cards, and more for rare operations."""
        offers = [self._offers(index) for index in range(count)]
        found = [self._operations(run) for runs in (self._examples(), *offers) for run in runs]
        self._alone = frozenset(op for one in found if one.alone for op in one.counts)
        chosen = [self._taken(self._in_turn(index, runs)) for index, runs in enumerate(offers)]
        return [probe for probe in chosen if probe is not None] + list(
            self._missing(count, samples)
        )

    def draws(self, graphs: int, first: int = 0) -> list[RunSpec]:
        """Runs whose batches are drawn and prepared without training on them.

        Of each of so many graphs, batches of several sizes; every fourth graph is a large one, on
        which only those draw that need no preparation.

        Args:
            graphs: how many.
            first: number of the first one: turns of a calibration take different ones.
        """
        found: list[RunSpec] = []
        for index in range(first, first + graphs):
            large = index % DRAWN_LARGE_EVERY == DRAWN_LARGE_EVERY - 1
            for number, base in enumerate(drawn_batches(index, self._workload, large=large)):
                asked = Probe(run=base, number=index + number, ranks=1)
                found += self._drawn(asked, large=large)
        return found

    def _drawn(self, asked: Probe, *, large: bool) -> Iterator[RunSpec]:
        """A run for each needed operation that draws or prepares batches of these sizes."""
        seen: set[str] = set()
        for name in APPROACHES.names():
            approach = APPROACHES.get(name)
            if not isinstance(approach, MiniBatch):
                continue
            plain = type(approach).prepared is MiniBatch.prepared
            for offer in approach.probes(asked):
                op = approach.form_of(offer).op
                if op in seen or op not in self.needed or (large and not plain):
                    continue
                if offer.ranks == 1 and self._possible(offer):
                    seen.add(op)
                    yield offer

    def _offers(self, index: int) -> list[RunSpec]:
        """What the cards offer for a probe. Half of the probes are trained on batches."""
        base, other = self._workload(index), index // 2
        return [
            offer
            for name in APPROACHES.names()
            for offer in APPROACHES.get(name).probes(
                Probe(run=base, number=other // 2, ranks=self.ranks)
            )
            if APPROACHES.get(name).accepts.batch == bool(index % 2) and self._possible(offer)
        ]

    def _in_turn(self, index: int, offers: list[RunSpec]) -> list[RunSpec]:
        """The offers of a probe from which one is taken.

        With several ranks, half of the probes that have no batches are trained by all ranks
        together, and the rest by each rank alone beside its peers.
        """
        together = self.ranks > 1 and index % 4 == 0
        return [o for o in offers if (o.ranks > 1) == together] or offers

    def _examples(self) -> list[RunSpec]:
        """Examples of all approaches that can run on this number of ranks."""
        runs = [run for name in APPROACHES.names() for run in APPROACHES.get(name).examples()]
        return [run for run in runs if run.ranks <= self.ranks]

    def _taken(self, offers: Sequence[RunSpec]) -> Workload | None:
        """The offer that performs the rarest operation so far; of several, the most often.

        None if no offer performs a needed operation. Counts the samples of the offer.
        """
        ranked = []
        for place, offer in enumerate(offers):
            kept = self._kept(offer)
            if kept:
                least = min(self.samples[op] for op in kept)
                ranked.append((least, -len(kept), place))
        if not ranked:
            return None
        offer = offers[min(ranked)[2]]
        kept, found = self._kept(offer), self._operations(offer)
        self.samples.update({op: found.counts[op] for op in kept})
        return Workload(run=offer, only=frozenset() if found.alone else kept)

    def _kept(self, run: RunSpec) -> frozenset[str]:
        """The needed operations of a run whose times say something."""
        found = self._operations(run)
        kept = frozenset(found.counts) & frozenset(self.needed)
        return kept if found.alone else kept - self._alone

    def _missing(self, start: int, samples: int) -> Iterator[Workload]:
        """Probes made of examples or of further offers, until every operation has its samples."""
        for op, names in self.needed.items():
            for more in range(start, start + MOST_MORE):
                if self.samples[op] >= samples:
                    break
                # Offers differ in size from probe to probe; an example on a stream does not.
                runs = [*self._offers(2 * more), *self._offers(2 * more + 1)]
                runs += [run for name in names for run in self._variants(name, 2 * more)]
                probe = self._taken([run for run in runs if op in self._kept(run)][:1])
                if probe is not None:
                    yield probe

    def _variants(self, name: str, index: int) -> Iterator[RunSpec]:
        """Examples of an approach with the sizes of a probe, if so many ranks can run them."""
        approach = APPROACHES.get(name)
        base = self._workload(index + approach.accepts.batch)
        for example in approach.examples():
            if example.ranks > 1 and self.ranks == 1:
                continue
            run = scaled(example, base, 1 if example.ranks == 1 else self.ranks)
            if self._possible(run):
                yield run

    def _workload(self, index: int) -> RunSpec:
        return workload(index, threads=self.threads, epochs=self.epochs, seed=self.seed)

    def _possible(self, run: RunSpec) -> bool:
        approach = APPROACHES.get(run.approach)
        return approach.cannot_run(run) is None and not approach.problems(run)

    def _operations(self, run: RunSpec) -> Operations:
        """Sizes decide nothing about which operations there are, so that few runs are planned."""
        model = dataclasses.replace(run.model, hidden=run.model.heads * 8, name="")
        same = dataclasses.replace(run, model=model, suite="", repeat=0)
        if is_drawn_graph(run.dataset):
            same = dataclasses.replace(same, dataset=DatasetRef(generator=KINDS[0]))
        elif run.dataset.generator:
            same = dataclasses.replace(
                same, dataset=dataclasses.replace(run.dataset, name="", options={})
            )
        key = repr(dataclasses.replace(same, training=dataclasses.replace(run.training, seed=0)))
        if key not in self._known:
            self._known[key] = operations(run, self.device)
        return self._known[key]


def scaled(example: RunSpec, base: RunSpec, ranks: int) -> RunSpec:
    """An example with the sizes of a probe; one of a stream or triples keeps its own dataset."""
    layers = example.model.layers
    fanouts = (*base.batch.fanouts_from_seeds, *(5,) * layers)[:layers]
    same = is_drawn_graph(example.dataset) and is_drawn_graph(base.dataset)
    return dataclasses.replace(
        example,
        suite=base.suite,
        dataset=base.dataset if same else example.dataset,
        model=dataclasses.replace(example.model, hidden=base.model.hidden),
        batch=dataclasses.replace(base.batch, fanouts_from_seeds=fanouts)
        if same
        else example.batch,
        training=dataclasses.replace(
            example.training,
            epochs=base.training.epochs,
            warmup_epochs=base.training.warmup_epochs,
            precision="float32",
            threads_per_rank=base.training.threads_per_rank,
            seed=base.training.seed,
        ),
        ranks=ranks,
    )
