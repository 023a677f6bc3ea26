"""GIST: disjoint sub-models of the hidden dimensions, trained apart and put back together.

A round is: dispatch the blocks of the sharded global model, train every sub-model for ζ iterations
on the unmodified loss, bring the blocks back. Nothing travels in between. All ranks see the same
batches: the parallelism is in the model.

Closed forms, per round (θ_sub: parameters of a sub-model, m sub-models, P ranks, s bytes):

    dispatch, aggregate   each m |θ_sub| s (1 - 1/P) bytes in the mean over the draws; the exact
                          number depends on where the drawn blocks meet the ranges of the owners
    P > m                 P/m ranks train a sub-model on parts of each batch: dispatch takes P/m
                          times as much, and 2 (1 - m/P) (|θ_sub| + 1) s per rank and iteration sum
                          gradients
    against data parallel  |θ_sub| / (ζ |θ|), about 1 / (ζ m²) where hidden-hidden matrices dominate

Deviation from the paper: the global model is sharded over the ranks instead of held by one of them,
and only the last layer's bias is averaged, as all other parameters are in one sub-model at most.

Source: Wolfe, Yang, Chowdhury, Dun, Bayer, Segarra, Kyrillidis, "GIST: Distributed Training for
Large-Scale Graph Convolutional Networks", 2021; sampling reference section 13, invariants G1-G9.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gnnbench import work
from gnnbench.approaches.base import NO_SEEDS, Approach, Layout, changed, example
from gnnbench.approaches.card import Accepts, Look, Promise
from gnnbench.approaches.mini_batch.base import BatchStructure, MiniBatch
from gnnbench.approaches.mini_batch.batch import Drawn, Form
from gnnbench.approaches.mini_batch.cluster_gcn import APPROACH as CLUSTERS
from gnnbench.approaches.mini_batch.evaluating import chunks, evaluated_shape, load
from gnnbench.approaches.mini_batch.fetching import Store
from gnnbench.approaches.mini_batch.sampled import APPROACH as SAMPLED
from gnnbench.approaches.mini_batch.submodels import (
    AT_ONCE,
    SubModels,
    piece_columns,
    widest_piece,
)
from gnnbench.approaches.mini_batch.writer import BatchKnobs, BatchWriter, sampled_data
from gnnbench.approaches.whole_graph.rows import RowSizes, share_buffers
from gnnbench.approaches.writing.chain import Chain
from gnnbench.approaches.writing.evaluating import ANSWER_BYTES, EvaluationWriter
from gnnbench.approaches.writing.shape import LayerSizes, stack_shape, total
from gnnbench.approaches.writing.stack import StackWriter
from gnnbench.data.graph import Graph
from gnnbench.iterations import Iteration, LazyIterations, RankClass
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import Buffer, Groups, Ints, Lane, Phase, Size, smaller
from gnnbench.strict import bounds, choices


@dataclass(frozen=True, slots=True, kw_only=True)
class GistKnobs:
    """Knobs of `gist`.

    Args:
        parts: number m of sub-models; 0 is one per rank.
        local_steps: iterations ζ of a round.
        base: training data of a sub-model: the whole graph, batches as `sampled` draws them, or
            those of `cluster-gcn` (as published).
        clusters: number of clusters, for the base cluster.
        merged: clusters of a subgraph, for the base cluster.
        subgraphs: subgraphs of a batch, for the base cluster; 0 is one per rank of a sub-model.
        reset_optimizer: reset the optimizer in every round, as published; otherwise each sub-model
            keeps its state by position.
    """

    parts: int = field(default=0, metadata=bounds(0, 4096))
    local_steps: int = field(default=10, metadata=bounds(1, 1_000_000))
    base: str = field(default="whole", metadata=choices("whole", "sampled", "cluster"))
    clusters: int = field(default=1500, metadata=bounds(1, 2**31 - 1))
    merged: int = field(default=20, metadata=bounds(1, 2**31 - 1))
    subgraphs: int = field(default=0, metadata=bounds(0, 1_000_000))
    reset_optimizer: bool = True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GistStructure:
    """How the model is cut, how many iterations an epoch has, and what its batches come from."""

    sub_models: SubModels
    steps: int
    batches: BatchStructure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Position of an iteration in its round, and what happens before and after it.

    Args:
        round: number of the round.
        dispatches, aggregates: whether the round begins before it, or ends after it.
        reports: whether an epoch ends after it, so that losses are summed over ranks.
    """

    round: int
    dispatches: bool
    aggregates: bool
    reports: bool


def place_of(iteration: int, local_steps: int, steps: int, total_steps: int) -> Place:
    """Of an iteration, counted over the whole run; both worlds ask it."""
    last = iteration == total_steps - 1
    return Place(
        round=iteration // local_steps,
        dispatches=iteration % local_steps == 0,
        aggregates=(iteration + 1) % local_steps == 0 or last,
        reports=(iteration + 1) % steps == 0,
    )


class Gist(Approach):
    """Card and plan of `gist`."""

    name = "gist"
    title = "GIST, disjoint sub-models"
    paper = "Wolfe et al., GIST: Distributed Training for Large-Scale GCNs, 2021"
    summary = "narrow sub-models of disjoint hidden units, trained apart, put together every round"
    promise = Promise(
        kind="own",
        text="Sub-models of disjoint hidden dimensions are trained apart for local_steps "
        "iterations; with one part and a kept optimizer it is plain training.",
        limit={"parts": 1, "reset_optimizer": False},
        limit_ranks=1,
    )
    accepts = Accepts(batch=True)
    look = Look(colour="#0072B2", marker="X")
    knobs_type = GistKnobs
    runtime = "gnnbench_runtime.approaches.mini_batch.gist:GistTrainer"

    def examples(self) -> list[RunSpec]:
        few = {"size": 16, "fanouts_from_seeds": (4, 3)}
        return [
            example("gist", 1, knobs={"local_steps": 2}),
            example("gist", 2, knobs={"local_steps": 2}),
            example("gist", 2, model={"layers": 3, "norm": "layer"}, knobs={"parts": 4}),
            example(
                "gist",
                2,
                batch=few,
                model={"kind": "sage", "dropout": 0.3},
                knobs={"base": "sampled", "local_steps": 3},
            ),
            example("gist", 2, knobs={"base": "cluster", "local_steps": 3}),
            # Two ranks a sub-model.
            example(
                "gist",
                4,
                batch={"size": 16, "fanouts_from_seeds": (4, 3, 2)},
                model={"layers": 3, "norm": "layer"},
                knobs={"parts": 2, "base": "sampled", "local_steps": 3},
            ),
        ]

    def reference(self, run: RunSpec) -> str:
        """The approach that trains the whole model on the same batches."""
        card = base_card(run)
        return "single" if card is None else card.name

    def parts(self, run: RunSpec) -> int:
        """Sub-models of a run."""
        found: int = self.knobs(run).parts
        return found or run.ranks

    def skip_reason(self, run: RunSpec, data: Any = None) -> str | None:
        """Parts must divide the hidden width; one of ranks and parts must divide the other."""
        parts, hidden = self.parts(run), run.model.hidden
        if run.model.layers < 2:
            return "gist cuts hidden dimensions; a model of one layer has none"
        if hidden % parts:
            return f"gist cannot cut {hidden} hidden units into {parts} equal parts"
        if parts % run.ranks and run.ranks % parts:
            return (
                f"gist cannot deal {parts} sub-models evenly to {run.ranks} ranks: make parts a "
                "multiple of the ranks, or ranks a multiple of the parts"
            )
        if run.ranks > parts and base_card(run) is None:
            return (
                f"gist cannot divide the whole graph among the {run.ranks // parts} ranks of a "
                "sub-model: use base sampled or cluster, or as many parts as ranks"
            )
        if data is not None and base_card(run) is not None and data.num_train == 0:
            return NO_SEEDS
        return None

    def structure(self, data: Any, run: RunSpec, cache: Path | None = None) -> GistStructure:
        """Sizes of the cut and of an epoch, known without the data's arrays."""
        shape = stack_shape(data, run, self.order(run))
        cut = SubModels(shape, self.parts(run), run.ranks, run.training.seed)
        card = base_card(run)
        if card is None:
            return GistStructure(sub_models=cut, steps=1)
        batches = card.structure(data, base_run(run), cache)
        return GistStructure(sub_models=cut, steps=batches.num_steps, batches=batches)

    def prepare(self, data: Graph, run: RunSpec, cache: Path | None = None) -> None:
        card = base_card(run)
        if card is not None:
            card.prepare(data, base_run(run), cache)

    def order(self, run: RunSpec) -> str:
        """Which product comes first: as in `single`, or as in `sampled`."""
        return "min_width" if self.knobs(run).base == "whole" else "aggregate_first"

    def plan(self, data: Any, run: RunSpec, structure: GistStructure, layout: Layout) -> Plan:
        knobs: GistKnobs = self.knobs(run)
        steps, total_steps = structure.steps, structure.steps * run.training.epochs
        card, drawn = base_card(run), None
        if card is not None:
            assert structure.batches is not None
            drawn = card.drawn(data, base_run(run), structure.batches)
        writer = _RoundWriter(data, structure.sub_models, layout.device, card, drawn)

        def iteration(number: int) -> Iteration:
            return writer.iteration(number, place_of(number, knobs.local_steps, steps, total_steps))

        cut = structure.sub_models
        return Plan(
            approach=run.approach,
            world_size=run.ranks,
            iterations=LazyIterations(total_steps, iteration),
            schedule=range(total_steps),
            periods=(steps,) * run.training.epochs,
            resident=_resident(data, cut, knobs.base),
            evaluation=LazyIterations(1, lambda _: _evaluation(data, run, cut)),
            counted=drawn is None or drawn.counted,
            basis="counted on the real graph" if drawn is None else drawn.basis,
            notes={
                "parts": cut.parts,
                "num_parameters": cut.shape.num_parameters,
                "sub_model_parameters": cut.sub_shape.num_parameters,
                "steps": steps,
            },
        )


def base_card(run: RunSpec) -> MiniBatch | None:
    """The approach whose batches sub-models train on; None where they see the whole graph."""
    cards: dict[str, MiniBatch] = {"sampled": SAMPLED, "cluster": CLUSTERS}
    return cards.get(APPROACH.knobs(run).base)


def base_run(run: RunSpec) -> RunSpec:
    """The run whose batches every sub-model trains on, by all ranks of a sub-model."""
    card, knobs = base_card(run), APPROACH.knobs(run)
    assert card is not None
    own = {}
    if card is CLUSTERS:
        of = {"clusters": knobs.clusters, "merged": knobs.merged, "subgraphs": knobs.subgraphs}
        own = changed(CLUSTERS.knobs_type(**of))
    members = max(run.ranks // APPROACH.parts(run), 1)
    return dataclasses.replace(run, approach=card.name, knobs=own, ranks=members)


class _RoundWriter:
    """Writes iterations: dispatch, batch, a pass of every sub-model, aggregation."""

    def __init__(
        self,
        data: Any,
        cut: SubModels,
        device: str,
        card: MiniBatch | None,
        drawn: Drawn | None,
    ) -> None:
        self.cut, self.drawn, self.data = cut, drawn, data
        # Positions as they are made and as they are used, and a few values; a CPU copies by rows.
        each = 4 * work.ID_BYTES + cut.shape.element_bytes
        self.scratch = 0 if device == "cpu" else each
        self.group = tuple(range(cut.ranks))
        teams = tuple(tuple(team) for team in cut.teams)
        self.teams = Groups(teams, np.arange(cut.ranks) // cut.members)
        form = Form() if card is None else card.form
        self.batches = BatchWriter(
            cut.sub_shape, form, BatchKnobs(), cut.ranks, Store(num_rows=data.num_nodes), device
        )

    def iteration(self, number: int, place: Place) -> Iteration:
        """One iteration of all ranks, which are one class."""
        chain = Chain()
        if place.dispatches:
            self._dispatch(chain, self.cut.counts(place.round))
        layers, train_rows = self._batch(chain, number)
        for at in range(self.cut.per_rank):
            chain.prefix = f"sub{at}/" if self.cut.per_rank > 1 else ""
            stack = StackWriter(self.cut.sub_shape, layers, None, chain)
            stack.forward()
            stack.loss(train_rows)
            stack.backward()
            stack.update(self.teams)
        chain.prefix = ""
        if place.aggregates:
            self._aggregate(chain, self.cut.counts(place.round))
        if place.reports and self.cut.ranks > 1:
            loss = work.all_reduce(1, self.cut.shape.element_bytes, self.cut.ranks)
            chain.step("sync/loss", loss, phase=Phase.SYNC, lane=Lane.COMM, group=self.group)
        return Iteration([RankClass(self.group, chain.done())])

    def _batch(self, chain: Chain, number: int) -> tuple[list[LayerSizes], Any]:
        """Sizes of the layers that an iteration trains on, and of its loss."""
        if self.drawn is None:
            layer = LayerSizes(
                rows=self.data.num_nodes,
                source_rows=self.data.num_nodes,
                nonzeros=self.data.num_edges,
                reuse=self.data.reuse_of_rows(),
            )
            return [layer] * self.cut.shape.num_layers, self.data.num_train
        batch = self.drawn.batches[self.drawn.schedule[number]].tiled(self.cut.ranks)
        return self.batches.prepare(chain, batch, first=False), batch.counted_rows

    def _dispatch(self, chain: Chain, needed: Ints) -> None:
        """Write how blocks travel from the ranges of their owners to the sub-models."""
        cut, alone, straight = self.cut, self.cut.ranks == 1, self.cut.per_rank == 1
        served, width = total(needed.T), cut.block_width
        self._copy(chain, "dispatch/pack", served, width, "" if alone else "leaving")
        if alone:
            return
        self._move(chain, "dispatch", needed.T, "" if straight else "arrived")
        if not straight:
            self._copy(chain, "dispatch/place", total(needed), cut.sub_shape.num_parameters)

    def _aggregate(self, chain: Chain, needed: Ints) -> None:
        """Write how blocks travel back."""
        cut = self.cut
        returned = cut.returned(needed)
        if cut.ranks > 1:
            if cut.per_rank > 1:
                width = cut.sub_shape.num_parameters
                self._copy(chain, "aggregate/pack", total(needed), width, "leaving")
            self._move(chain, "aggregate", returned, "arrived")
        self._copy(chain, "aggregate/place", total(returned.T), cut.block_width)

    def _copy(self, chain: Chain, name: str, count: Size, width: int, into: str = "") -> None:
        """Write a copy of blocks, whose rows are `width` long; into a buffer, where it is named."""
        s, room, frees = self.cut.shape.element_bytes, [], []
        if self.scratch:
            moving = smaller(count * self.scratch, AT_ONCE * self.scratch)
            room.append(Buffer("moving", moving))
            frees.append("moving")
        if into:
            room.append(Buffer(into, count * s))
        elif self.cut.ranks > 1:
            frees += ["leaving", "arrived"]
        done = work.copy_blocks(count, width, s)
        chain.step(name, done, phase=Phase.SYNC, allocates=tuple(room), frees=tuple(frees))

    def _move(self, chain: Chain, name: str, send: Ints, into: str) -> None:
        """Write the exchange of elements that rank i sends to rank j; the diagonal stays."""
        s = self.cut.shape.element_bytes
        others = send.copy()
        np.fill_diagonal(others, 0)
        room = (Buffer(into, total(send.T) * s),) if into else ()
        chain.step(
            f"{name}/blocks",
            work.all_to_all(others, total(others.T), s, width=1),
            phase=Phase.SYNC,
            lane=Lane.COMM,
            group=self.group,
            allocates=room,
            frees=() if into else ("leaving",),
        )


def _resident(data: Any, cut: SubModels, base: str) -> tuple[Buffer, ...]:
    """Buffers that live throughout: data, the rank's range of the global model, its sub-models."""
    s = cut.shape.element_bytes
    if base == "whole":
        held = share_buffers(cut.sub_shape, RowSizes.whole(data))
    else:
        held = sampled_data(cut.sub_shape, data, Store(num_rows=data.num_nodes))
    return (
        *(buffer._replace(bytes=_first(buffer.bytes)) for buffer in held),
        Buffer("global_shard", cut.shard_length * s),
        Buffer("sub_models", cut.per_rank * cut.sub_shape.parameter_bytes),
    )


def _first(size: Any) -> int:
    """The size that is the same on every rank."""
    return int(np.ravel(size)[0])


def _evaluation(data: Any, run: RunSpec, cut: SubModels) -> Iteration:
    """An evaluation of the global model: its matrices come in pieces, layer by layer.

    Every rank has the features of all vertices, and reads those of its chunk in place.
    """
    shape, sizes, s = evaluated_shape(data, run), chunks(data, run.ranks), cut.shape.element_bytes
    writer = EvaluationWriter(run.ranks)
    n, u = sizes.rows, sizes.rows + sizes.halo_rows
    load(writer, data, shape, sizes, in_place=True, halo_rows=False)
    widest = widest_piece(shape)
    below = ""
    for layer in range(1, shape.num_layers + 1):
        fan_in, fan_out = shape.dims[layer - 1 : layer + 1]
        columns = piece_columns(shape, layer)
        made: dict[str, Size] = {
            f"h{layer}": n * fan_out * s,
            "piece": columns * fan_out * s,
            "halo_rows": sizes.sent_rows * widest * s,
        }
        if shape.orders[layer - 1] == "aggregate_first":
            # One rank has all columns of its rows in one place already.
            apart = run.ranks > 1 or columns < fan_in
            made |= {"columns": u * columns * s * apart, f"z{layer}": n * columns * s}
        else:
            made |= {f"t{layer}": u * fan_out * s, f"z{layer}": n * fan_out * s}
        if shape.has_norm(layer):
            made[f"n{layer}"] = n * fan_out * s
            made[f"statistics{layer}"] = 2 * n * s
        kept = f"n{layer}" if shape.has_norm(layer) else f"h{layer}"
        ends = [name for name in made if name not in (kept, "halo_rows")]
        writer.step(str(layer), made, frees=[*ends, *([below] if below else [])])
        below = kept
    writer.step("answers", {"answers": ANSWER_BYTES * n})
    return writer.iteration()


APPROACH = Gist()
