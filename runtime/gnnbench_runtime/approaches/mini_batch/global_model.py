"""The sharded global model of GIST: blocks travel to sub-models and back, weights are streamed.

No rank ever holds the whole model: it is drawn, dispatched, put back and evaluated by pieces.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.approaches.mini_batch.submodels import AT_ONCE, Part, SubModels
from gnnbench.steps import Phase, Work
from gnnbench_runtime.models.parameters import initial
from gnnbench_runtime.protocol import RankContext
from gnnbench_runtime.recorder import Span


class GlobalModel:
    """This rank's range of the global parameters, and how blocks travel to sub-models and back.

    Args:
        context: the rank.
        cut: how the model is cut.
    """

    def __init__(self, context: RankContext, cut: SubModels) -> None:
        self.context, self.cut = context, cut
        start, stop = cut.bounds[context.rank : context.rank + 2].tolist()
        self.start, self.stop = start, stop
        self._route: _Route | None = None
        self.shard = torch.zeros(cut.shard_length, device=context.device, dtype=context.dtype)
        seed = context.run.training.seed
        for first in range(start, stop, AT_ONCE):
            last = min(first + AT_ONCE, stop)
            drawn = torch.from_numpy(initial(cut.shapes, seed, first, last))
            self.shard[first - start : last - start] = drawn.to(context.device, context.dtype)

    # -- rounds ----------------------------------------------------------------------------------

    def dispatch(self, round_: int, into: Tensor) -> None:
        """Fill the flat parameters of this rank's sub-models with their blocks."""
        cut, route = self.cut, self._route_of(round_)
        alone, straight = cut.ranks == 1, cut.per_rank == 1
        leaving = into if alone else into.new_empty(sum(route.served))
        gather = self.context.kernels.gather_block
        with self._step("dispatch/pack", self._blocks(leaving)):
            at = 0
            for block, first, last in route.blocks_served():
                room = leaving[at : at + last - first]
                gather(self.shard, block, block.start - self.start, first, room)
                at += last - first
        if alone:
            return
        arrived = into if straight else torch.empty_like(into)
        self._move("dispatch", arrived, leaving, route.needed, route.served)
        if straight:
            return
        with self._step("dispatch/place", self._ranges(into)):
            at = 0
            for own in route.ranges_needed():
                into[own] = arrived[at : at + own.stop - own.start]
                at += own.stop - own.start

    def aggregate(self, round_: int, trained: Tensor, into: Tensor) -> None:
        """Bring blocks back to the ranges of their owners.

        What all sub-models share is averaged, in the order of the sub-models.
        """
        cut, route = self.cut, self._route_of(round_)
        arrived = trained
        if cut.ranks > 1:
            leaving = self._leaving(route, trained)
            arrived = into.new_empty(sum(route.returned))
            sent = route.needed if cut.leads(self.context.rank) else [0] * cut.ranks
            self._move("aggregate", arrived, leaving, route.returned, sent)
        with self._step("aggregate/place", self._blocks(arrived)):
            self._place(route, arrived, into)

    def _leaving(self, route: _Route, trained: Tensor) -> Tensor:
        """What this rank returns, by owner: nothing, if another rank of its team returns it."""
        if not self.cut.leads(self.context.rank):
            return trained[:0]
        if self.cut.per_rank == 1:
            return trained
        leaving = torch.empty_like(trained)
        with self._step("aggregate/pack", self._ranges(trained)):
            at = 0
            for own in route.ranges_needed():
                leaving[at : at + own.stop - own.start] = trained[own]
                at += own.stop - own.start
        return leaving

    def _place(self, route: _Route, arrived: Tensor, into: Tensor) -> None:
        """Put blocks where they belong; add up what is shared, and divide it."""
        shared = [max(at - self.start, 0) for at in (self.cut.shared.start, self.cut.shared.stop)]
        common = into[shared[0] : min(shared[1], self.stop - self.start)]
        common.zero_()
        scatter, at = self.context.kernels.scatter_block, 0
        for block, first, last in route.blocks_returned():
            values, at = arrived[at : at + last - first], at + last - first
            start = block.start - self.start
            if block.start < self.cut.shared.start:
                scatter(into, block, start, first, values)
            else:
                into[start + first : start + last] += values
        common.div_(self.cut.parts)

    # -- evaluation ------------------------------------------------------------------------------

    def gathered(self) -> Tensor:
        """All parameters on every rank, from everybody's range."""
        context, cut = self.context, self.cut
        every = torch.empty(
            cut.ranks * cut.shard_length, device=context.device, dtype=context.dtype
        )
        context.comm.all_gather(every, self.shard, "evaluate/parameters", Phase.EVALUATE)
        return every[: cut.shape.num_parameters]

    def streamed(self, first: int, last: int, into: Tensor) -> None:
        """Fill `into` with flat parameters first ... last - 1, broadcast by their owners."""
        bounds, comm = self.cut.bounds, self.context.comm
        for owner in range(self.cut.ranks):
            low, high = max(first, int(bounds[owner])), min(last, int(bounds[owner + 1]))
            if low >= high:
                continue
            piece = into[low - first : high - first]
            if owner == self.context.rank:
                piece.copy_(self.shard[low - self.start : high - self.start])
            comm.broadcast(piece, owner, "evaluate/parameters", Phase.EVALUATE)

    # -- how -------------------------------------------------------------------------------------

    def _move(
        self, name: str, arrived: Tensor, leaving: Tensor, arriving: list[int], given: list[int]
    ) -> None:
        where = f"{name}/blocks"
        self.context.comm.all_to_all(arrived, leaving, arriving, given, where, Phase.SYNC)

    def _route_of(self, round_: int) -> _Route:
        """The route of a round: its dispatch and its aggregation take the same."""
        if self._route is None or self._route.round != round_:
            self._route = _Route(self.cut, round_, self.context.rank)
        return self._route

    def _blocks(self, values: Tensor) -> Work:
        """Copy blocks of matrices to a vector, or back."""
        return work.copy_blocks(len(values), self.cut.block_width, values.element_size())

    def _ranges(self, values: Tensor) -> Work:
        """Copy ranges of a vector, each of about a sub-model's parameters."""
        width = self.cut.sub_shape.num_parameters
        return work.copy_blocks(len(values), width, values.element_size())

    def _step(self, name: str, done: Work) -> Span:
        return self.context.recorder.step(name, done, phase=Phase.SYNC)


class _Route:
    """Which parameters a rank needs in a round and which it serves.

    needed      elements that it gets from each owner, and returns to it
    served      elements that it gives to each rank
    returned    elements that each rank returns to it
    """

    def __init__(self, cut: SubModels, round_: int, rank: int) -> None:
        self.round, self._cut, self._rank = round_, cut, rank
        self._groups = cut.groups(round_)
        self._shares = cut.every_share(self._groups)
        counts = cut.counts_of(self._shares)
        self.needed: list[int] = counts[rank].tolist()
        self.served: list[int] = counts[:, rank].tolist()
        self.returned: list[int] = cut.returned(counts)[:, rank].tolist()

    def blocks_served(self) -> Iterator[tuple[Part, int, int]]:
        """Blocks that the rank gives, and which of their elements, by receiver."""
        for receiver in range(self._cut.ranks):
            yield from self._blocks_of(receiver)

    def blocks_returned(self) -> Iterator[tuple[Part, int, int]]:
        """Blocks that come back to the rank, and which of their elements, by sender."""
        for sender in range(self._cut.ranks):
            if self._cut.leads(sender):
                yield from self._blocks_of(sender)

    def _blocks_of(self, other: int) -> Iterator[tuple[Part, int, int]]:
        """What lies in this rank's range of another rank's sub-models."""
        for part in self._cut.of_rank(other):
            first, last = self._shares[part][self._rank : self._rank + 2].tolist()
            yield from self._cut.blocks(self._groups, part, first, last)

    def ranges_needed(self) -> Iterator[slice]:
        """Ranges of the rank's flat sub-models, by owner."""
        cut, size = self._cut, self._cut.sub_shape.num_parameters
        shares = [self._shares[part].tolist() for part in cut.of_rank(self._rank)]
        for owner in range(cut.ranks):
            for number, of in enumerate(shares):
                yield slice(number * size + of[owner], number * size + of[owner + 1])
