"""A thread that reads the next batch of a stream while the one before is trained on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from gnnbench.approaches.temporal.memory import Stored
from gnnbench_runtime.approaches.temporal.source import StreamBatch

Read = tuple[StreamBatch, Stored | None]
"""A batch, and the messages that its memory is computed from; None without memory."""


class Ahead:
    """Reads one batch at a time in a thread; `begin` and `take` alternate.

    What the training thread has written before `begin` is visible to the read, and nothing that it
    writes after `take`. On CUDA the thread has a stream of its own, and both orders are kept by
    events.

    Args:
        read: from the number of a batch to the batch.
        device: of the batches.
    """

    def __init__(self, read: Callable[[int], Read], device: torch.device) -> None:
        self._read, self._device = read, device
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._reading: Future[tuple[Read, Any]] | None = None

    def begin(self, number: int) -> None:
        """Begin to read a batch."""
        written = None
        if self._stream is not None:
            written = torch.cuda.current_stream(self._device).record_event()
        self._reading = self._pool.submit(self._work, number, written)

    def take(self) -> Read:
        """Wait for the batch and return it; raises what the thread raised."""
        assert self._reading is not None, "no batch is being read"
        (batch, stored), event = self._reading.result()
        self._reading = None
        if event is not None:
            training = torch.cuda.current_stream(self._device)
            training.wait_event(event)
            for tensor in batch.tensors():
                tensor.record_stream(training)
        return batch, stored

    def _work(self, number: int, written: Any) -> tuple[Read, Any]:
        if self._stream is None:
            return self._read(number), None
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(written)
            found = self._read(number)
            return found, self._stream.record_event()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)
