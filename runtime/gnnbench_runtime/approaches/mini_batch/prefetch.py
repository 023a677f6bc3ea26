"""A thread that prepares batches ahead of the trainer."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gnnbench_runtime.training import Batch


class Prefetcher:
    """Prepares batches in a thread, at most `depth` of them besides the one in use.

    On CUDA the thread works on a stream of its own, so that copies and gathers overlap the training
    step; a batch is handed over with an event that the training stream waits for.

    Args:
        prepare: from a step and a slot to its batch.
        steps: how many batches.
        depth: batches prepared ahead; each has a slot (0 ... depth) whose buffers are its own.
        at: called in the thread with each step, before it is prepared.
        device: of the batches.
    """

    def __init__(
        self,
        prepare: Callable[[int, int], Batch],
        steps: int,
        depth: int,
        at: Callable[[int], None],
        device: torch.device,
    ) -> None:
        self._slots = threading.Semaphore(depth + 1)
        self._ready: queue.Queue[Any] = queue.Queue()
        self._stopped = False
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = threading.Thread(
            target=self._work, args=(prepare, steps, depth + 1, at), name="prefetch", daemon=True
        )
        self._thread.start()

    def _work(
        self,
        prepare: Callable[[int, int], Batch],
        steps: int,
        slots: int,
        at: Callable[[int], None],
    ) -> None:
        try:
            for step in range(steps):
                self._slots.acquire()
                if self._stopped:
                    return
                at(step)
                self._ready.put(self._prepared(prepare, step, step % slots))
        except BaseException as error:  # handed to the trainer, whose failure it is
            self._ready.put(error)

    def _prepared(
        self, prepare: Callable[[int, int], Batch], step: int, slot: int
    ) -> tuple[Batch, Any]:
        if self._stream is None:
            return prepare(step, slot), None
        # A slot's buffers are written again once the training step that read them has ended.
        with torch.cuda.stream(self._stream):
            if self._released is not None:
                self._stream.wait_event(self._released)
            batch = prepare(step, slot)
            return batch, self._stream.record_event()

    _released: Any = None

    def batches(self, steps: int) -> Iterator[Batch]:
        """Yield the batches in order; raises what the thread raised."""
        try:
            for _ in range(steps):
                item = self._ready.get()
                if isinstance(item, BaseException):
                    raise item
                batch, event = item
                if event is not None:
                    self._hand_over(batch, event)
                del item
                yield batch
                del batch
                if self._stream is not None:
                    self._released = torch.cuda.current_stream(self._device).record_event()
                self._slots.release()
        finally:
            self.stop()

    def _hand_over(self, batch: Batch, event: Any) -> None:
        """Let the training stream use what the thread's stream made.

        The allocator may give memory of the thread's stream away as soon as the host drops it; each
        tensor is marked as used by the training stream, which may still be reading then.
        """
        training = torch.cuda.current_stream(self._device)
        training.wait_event(event)
        for tensor in _tensors(batch):
            tensor.record_stream(training)

    def stop(self) -> None:
        """End the thread; after all batches it has ended by itself."""
        self._stopped = True
        self._slots.release()
        self._thread.join()


def _tensors(item: Any) -> Iterator[Tensor]:
    """Every tensor of a batch, of its patterns and lists."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, list | tuple):
        for part in item:
            yield from _tensors(part)
    elif dataclasses.is_dataclass(item):
        for spec in dataclasses.fields(item):
            yield from _tensors(getattr(item, spec.name))
