"""The pipeline of a visit: draw, gather, copy and update rows while the decoder computes.

Rows are gathered and updated by one thread, in an order that is fixed in advance: batch t is
gathered, then batch t - k is updated. So the rows of a batch lack exactly the updates of the k
batches before it (fewer at the start of a visit), whatever the speed of the stages; nothing is lost
that two batches add to one row. Relations are updated with every batch, as the decoder is one
thread. A visit ends when all of its updates are done: no batch has rows of an evicted partition.

Source: out-of-core reference section 6 (B = k + 1 batches in flight), invariants 19, 20 and 29.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gnnbench.approaches.out_of_core.link_plan import update_name
from gnnbench.approaches.out_of_core.links import Facts, LinkBatch
from gnnbench_runtime.approaches.out_of_core.tables import Present
from gnnbench_runtime.stages import Channel, Stages


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """A visit that is trained on.

    Args:
        present: rows in the buffer.
        facts: in the order of training.
        period: epoch.
        first: number of its first batch in the epoch.
        count: batches.
    """

    present: Present
    facts: Facts
    period: int
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """A batch, and the places of its rows and of their states in the table."""

    batch: LinkBatch
    rows: Tensor
    states: Tensor


def train_visit(trainer: Any, turn: Turn, total: Tensor) -> None:
    """Train on all batches of a visit, and add their losses to `total`.

    Args:
        trainer: a `LinkTrainer`.
        turn: the visit.
        total: sum of losses, on the device.
    """
    on_cpu, flight = trainer.on_cpu, trainer.staleness + 1
    at_step = trainer.context.recorder.at
    with Stages() as stages:
        updated, drawn, gathered, ready, back, returned = (stages.channel(flight) for _ in range(6))
        for _ in range(flight):
            updated.put(None)

        def draw() -> None:
            for at in range(turn.count):
                updated.get()
                at_step(turn.first + at)
                drawn.put(trainer.draw(turn, at))

        def copy(device: torch.device) -> None:
            for at in range(turn.count):
                batch = gathered.get()
                at_step(turn.first + at)
                with _Stream(device) as stream:
                    made = trainer.to_device(batch)
                ready.put((made, stream.mark()))

        def copy_back(device: torch.device) -> None:
            for at in range(turn.count):
                gradient, mark = back.get()
                at_step(turn.first + at)
                with _Stream(device) as stream:
                    stream.wait(mark)
                    found = trainer.to_host(gradient)
                returned.put(found)

        stages.start("draw", draw)
        rows = _Rows(trainer, turn, drawn, ready if on_cpu else gathered, returned, updated)
        stages.start("rows", rows.run)
        device = trainer.context.device
        if not on_cpu:
            stages.start("copy", lambda: copy(device))
            stages.start("copy-back", lambda: copy_back(device))
        main = _Stream(device)
        for at in range(turn.count):
            item = ready.get()
            batch, mark = (item, None) if on_cpu else item
            at_step(turn.first + at)
            main.take(mark, batch.x, batch.heads, batch.tails, batch.relations, batch.negatives)
            loss, gradient = trainer.compute(batch)
            total += loss
            if on_cpu:
                returned.put(gradient)
            else:
                back.put((gradient, main.mark()))
            del batch, item, gradient


class _Rows:
    """The stage that gathers rows and updates them, `staleness` batches later."""

    def __init__(
        self,
        trainer: Any,
        turn: Turn,
        drawn: Channel,
        gathered: Channel,
        returned: Channel,
        updated: Channel,
    ) -> None:
        self._trainer, self._turn = trainer, turn
        self._drawn, self._gathered = drawn, gathered
        self._returned, self._updated = returned, updated
        self._waiting: list[Any] = []

    def run(self) -> None:
        """All batches of the visit."""
        trainer, count, k = self._trainer, self._turn.count, self._trainer.staleness
        for at in range(count):
            drawn = self._drawn.get()
            trainer.context.recorder.at(self._turn.first + at)
            trainer.most_stale = max(trainer.most_stale, len(self._waiting))
            batch = trainer.gather(drawn)
            self._waiting.append(batch)
            self._gathered.put(batch)
            if at >= k:
                self._update(k)
        for late in range(min(k, count) - 1, -1, -1):
            self._update(late)

    def _update(self, late: int) -> None:
        """Update the rows of the oldest batch, `late` batches before the one gathered last."""
        gradient = self._returned.get()
        self._trainer.apply(self._waiting.pop(0), gradient, update_name(late))
        self._updated.put(None)


class _Stream:
    """A CUDA stream of one's own inside a `with` block, the thread's own outside; else nothing."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._entered: Any = None
        self._cuda = device.type == "cuda"
        self._own = torch.cuda.Stream(device) if self._cuda else None
        self._event: Any = None

    def __enter__(self) -> _Stream:
        if self._own is not None:
            self._entered = torch.cuda.stream(self._own)
            self._entered.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._own is not None and self._entered is not None:
            self._event = self._own.record_event()
            self._entered.__exit__(*error)

    def mark(self) -> Any:
        """An event after what was issued in the block, or on the thread's own stream."""
        if not self._cuda:
            return None
        if self._entered is not None:
            return self._event
        return torch.cuda.current_stream(self._device).record_event()

    def wait(self, mark: Any) -> None:
        """Let what follows on the current stream wait for an event."""
        if mark is not None:
            torch.cuda.current_stream(self._device).wait_event(mark)

    def take(self, mark: Any, *tensors: Tensor) -> None:
        """Wait for an event, and tell the allocator that the current stream uses some tensors."""
        self.wait(mark)
        if mark is not None:
            for tensor in tensors:
                tensor.record_stream(torch.cuda.current_stream(self._device))
