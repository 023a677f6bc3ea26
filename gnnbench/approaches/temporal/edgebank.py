"""EdgeBank: nothing is learnt; a link is predicted where its pair was seen before.

Every rank keeps the whole table of pairs, predicts its share of an increment, and then inserts all
of it. Without increments the table has the training events, and each predicted batch is inserted
after it. The loss of a period is the share of its predicted pairs that are wrong, true and false
ones weighted alike.

Closed form: all-gather of s bytes per pair of the rank with the most, once per increment.

Source: temporal reference sections 6 and 12; Poursafaei et al., NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import Approach, Layout, Probe
from gnnbench.approaches.card import Accepts, Look, Promise
from gnnbench.approaches.temporal.continuous import APPROACH as CONTINUOUS
from gnnbench.approaches.temporal.continuous import TGB_BATCH, refused, tiny_flow
from gnnbench.approaches.temporal.evaluating import measure_parts
from gnnbench.approaches.temporal.metrics import measured_bytes
from gnnbench.approaches.temporal.schedule import Protocol
from gnnbench.approaches.temporal.structure import Sampling, StreamStructure
from gnnbench.approaches.temporal.writing import schedule_buffers
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.evaluating import EvaluationWriter
from gnnbench.data.edgebank import EdgeBank
from gnnbench.data.stream import EdgeStream
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.spec import ModelSpec, RunSpec
from gnnbench.steps import After, Buffer, Lane, Phase, Space
from gnnbench.strict import bounds, choices


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeBankKnobs:
    """Knobs of `edgebank`.

    memory: "unlimited" remembers every pair; "window" those that were seen within a window before
    the newest event. window_share: length of the window, as a share of the training events' time
    span. offline: share of the stream that is known before the increments.
    """

    memory: str = field(default="unlimited", metadata=choices("unlimited", "window"))
    window_share: float = field(default=0.15, metadata=bounds(0, 1))
    offline: float = field(default=0.3, metadata=bounds(0, 0.95))


PAIR_BYTES = 80
"""Of a pair that is scored: ends and times of the asked events, both ends, key and score."""


class EdgeBankStructure(StreamStructure):
    """Schedule and candidates of a run, and the table as it grows."""

    window: int = 0

    def empty_bank(self) -> EdgeBank:
        """The table before the first event."""
        return EdgeBank(self.stream.num_nodes, self.window)

    def remember(self, bank: EdgeBank, first: int, stop: int) -> None:
        """Insert events first..stop-1."""
        part, stream = slice(first, stop), self.stream
        bank.insert(stream.sources[part], stream.destinations[part], stream.times[part])

    @cached_property
    def bank_bytes(self) -> list[tuple[int, int]]:
        """Bytes of the table after each period, and of its pairs when it last grew in it."""
        bank, found = self.empty_bank(), []
        for pieces in self.pieces:
            before = bank.num_bytes
            for piece in pieces:
                self.remember(bank, *piece.ingest)
            after = bank.num_bytes
            # The old table was half full, and as large as half of the new one.
            found.append((after, after // 4 if after > before else 0))
        return found


class EdgeBankApproach(Approach):
    """Card and plan of `edgebank`."""

    name = "edgebank"
    title = "EdgeBank"
    paper = "Poursafaei et al., Towards Better Evaluation for Dynamic Link Prediction, NeurIPS 2022"
    summary = "a baseline without parameters: pairs that were seen before are predicted"
    promise = Promise(
        kind="exact",
        text="Predictions and metrics equal those of one rank.",
        reference="edgebank",
    )
    accepts = Accepts(
        datasets=frozenset({"stream"}),
        tasks=frozenset({"temporal_link_prediction"}),
        batch=True,
        models=frozenset({"pairs"}),
    )
    look = Look(colour="0.5", marker="x", dashed=True)
    knobs_type = EdgeBankKnobs
    runtime = "gnnbench_runtime.approaches.temporal.edgebank:EdgeBankTrainer"

    def examples(self) -> list[RunSpec]:
        model: dict[str, Any] = {"kind": "pairs"}
        few = {"increments": 3, "epochs": 1}
        tgb = {"protocol": "tgb", "negatives": 20}
        window = {"memory": "window"}
        return [
            tiny_flow(self.name, 2, model=model, batch={"size": 50}, training=few),
            tiny_flow(
                self.name, 3, model=model, batch={"size": 64}, training=few, knobs=window, task=tgb
            ),
            tiny_flow(
                self.name, 2, model=model, batch={"size": 64}, training={"epochs": 1}, task=tgb
            ),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        """A small stream, as many increments as the probe has epochs."""
        model = ModelSpec(name="pairs", kind="pairs")
        return [
            replace(run, approach=self.name, model=model, knobs={})
            for run in CONTINUOUS.probes(probe)
        ]

    def skip_reason(self, run: RunSpec, data: Any = None) -> str | None:
        """A profile has no events; an increment needs some."""
        return refused(self.name, run, data, lambda: self.protocol(data, run))

    def num_periods(self, run: RunSpec) -> int:
        """Increments, and the offline phase where there is one; without increments, one."""
        training = run.training
        offline = self.knobs(run).offline > 0
        return training.increments + offline if training.increments else 1

    def protocol(self, data: EdgeStream, run: RunSpec) -> Protocol:
        """How the run goes through a stream."""
        evaluation = run.batch.size * (2 + run.batch.negatives) // (2 + run.task.negatives)
        return Protocol(
            events=data.num_edges,
            train_end=data.train_end,
            epochs=1,
            increments=run.training.increments,
            offline=self.knobs(run).offline,
            batch=run.batch.size,
            evaluation_batch=max(evaluation, 1),
            streamed_batch=TGB_BATCH,
            speedup=run.training.speedup,
            learns=False,
            ranks=run.ranks,
            seed=run.training.seed,
        )

    def structure(self, data: Any, run: RunSpec, cache: Path | None = None) -> EdgeBankStructure:
        knobs: EdgeBankKnobs = self.knobs(run)
        sampling = Sampling(
            fanouts_from_seeds=(),
            strategy="recent",
            window=0,
            first=1,
            block=1,
            negatives=(run.batch.negatives, run.task.negatives),
            fixed=run.task.protocol == "tgb",
        )
        protocol = self.protocol(data, run)
        found = EdgeBankStructure(stream=data, protocol=protocol, sampling=sampling, cache=cache)
        if knobs.memory == "window" and protocol.offline_end:
            times = np.asarray(found.stream.times[: protocol.offline_end])
            found.window = max(round(knobs.window_share * int(times[-1] - times[0])), 1)
        return found

    def plan(self, data: Any, run: RunSpec, structure: EdgeBankStructure, layout: Layout) -> Plan:
        lengths = [len(pieces) for pieces in structure.pieces]
        places = [(period, at) for period, count in enumerate(lengths) for at in range(count)]
        releases = [structure.schedule.release_s(period) for period, _ in places]
        s = run.training.element_bytes
        writer = _Writer(structure, s, layout.device)
        return Plan(
            approach=run.approach,
            world_size=run.ranks,
            iterations=LazyIterations(
                len(places), lambda number: writer.iteration(*places[number])
            ),
            schedule=range(len(places)),
            periods=tuple(lengths),
            period="increment" if run.training.increments else "epoch",
            releases=releases if any(releases) else (),
            arrivals=structure.schedule.arrivals() if any(releases) else (),
            # Scores of an increment, together and of all ranks.
            resident=(
                Buffer("gathered", (1 + run.ranks) * structure.gathered_pairs * s),
                *schedule_buffers(structure),
            ),
            evaluation=_evaluation(structure, s),
            counted=structure.counted,
            basis=structure.basis,
            notes={"window": structure.window, "offline_events": structure.protocol.offline_end},
        )


def _evaluation(structure: EdgeBankStructure, element_bytes: int) -> Sequence[Iteration]:
    """The evaluation of a static graph: a table of its own, filled part by part."""
    if structure.protocol.increments:
        return ()

    def made(_: int) -> Iteration:
        writer = EvaluationWriter(structure.protocol.ranks)
        bank = structure.empty_bank()
        structure.remember(bank, 0, structure.protocol.events)
        size = bank.num_bytes
        writer.step("bank", {}, on_host={"bank": size, "grown": size // 4}, frees=["grown"])
        measure_parts(writer, structure, element_bytes, memory=False)
        return writer.iteration()

    return LazyIterations(1, made)


class _Writer:
    """Writes iterations: predict, or insert."""

    def __init__(self, structure: EdgeBankStructure, element_bytes: int, device: str) -> None:
        self.structure, self.s, self.device = structure, element_bytes, device
        self.group = tuple(range(structure.protocol.ranks))

    def iteration(self, period: int, number: int) -> Iteration:
        """One iteration of all ranks."""
        pieces = self.structure.pieces
        piece, chain = pieces[period][number], Chain()
        before = pieces[period][number - 1] if number else pieces[max(period - 1, 0)][-1]
        waits = (After(self._last(before.kind, before.closes), 1),)
        if piece.kind == "ingest":
            first, stop = piece.ingest
            size, moved = self.structure.bank_bytes[period]
            held = Buffer("bank", size, Space.HOST, exact=True)
            # Keys of events from int64 copies of both ends; pairs on their way to a larger table.
            room = Buffer("ingested", 3 * work.ID_BYTES * (stop - first) + moved, Space.HOST)
            chain.step(
                "ingest",
                work.edgebank_insert(stop - first),
                phase=Phase.LOAD,
                after=waits,
                allocates=(held, room),
                frees=(room.name,),
            )
        else:
            self._predict(chain, period, number, waits)
        return Iteration([RankClass(self.group, chain.done())])

    def _last(self, kind: str, closes: bool) -> str:
        """The name of an iteration's last step."""
        if kind == "ingest":
            return "ingest"
        if closes and len(self.group) > 1:
            return "evaluate/scores"
        return "forward/edgebank" if self.device == "cpu" else "fetch/copy"

    def _predict(self, chain: Chain, period: int, number: int, waits: tuple[After, ...]) -> None:
        structure, s, ranks = self.structure, self.s, len(self.group)
        piece = structure.pieces[period][number]
        pairs = structure.num_pairs(piece)
        first, stop = structure.schedule.predicted(period)
        most = structure.most_pairs(first, stop)
        # Ends and keys of the pairs, their scores in float64 and in the type of the run.
        held = Buffer("pairs", PAIR_BYTES * pairs, Space.HOST)
        scores = Buffer("scores", most * s)
        chain.step(
            "forward/edgebank",
            work.edgebank_score(pairs, s),
            phase=Phase.EVALUATE,
            after=waits,
            allocates=(held, scores),
            frees=(held.name,),
        )
        if self.device != "cpu":
            copied = work.to_device(pairs * s)
            chain.step("fetch/copy", copied, phase=Phase.EVALUATE, lane=Lane.COPY)
        if not piece.closes:
            return
        size = measured_bytes(structure.all_pairs(first, stop), stop - first)
        metrics = Buffer("metrics", size, Space.HOST)
        if ranks > 1:
            chain.step(
                "evaluate/scores",
                work.all_gather(most, s, ranks),
                phase=Phase.EVALUATE,
                lane=Lane.COMM,
                group=self.group,
                allocates=(metrics,),
                frees=(metrics.name,),
            )
            return
        last = chain.steps[-1]
        chain.steps[-1] = replace(
            last,
            allocates=(*last.allocates, metrics),
            frees=(*last.frees, metrics.name),
        )


APPROACH = EdgeBankApproach()
