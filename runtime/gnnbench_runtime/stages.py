"""Stages of a pipeline: threads joined by bounded queues.

The first stage that raises stops all others; the main thread raises its error when it leaves the
`with` block, after every thread has ended. A main thread that raises stops the stages as well.

    with Stages() as stages:
        drawn = stages.channel(2)
        stages.start("draw", lambda: [drawn.put(draw(step)) for step in range(steps)])
        for _ in range(steps):
            train(drawn.get())
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any


class Stopped(Exception):
    """Another stage has failed: this one ends without a word of its own."""


class Channel:
    """A queue of at most `size` items between two stages. Both sides raise Stopped after a stop."""

    def __init__(self, stages: Stages, size: int) -> None:
        self._stages, self._size = stages, size
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        """Wait for room, and hand an item over."""
        with self._stages.changed:
            self._stages.wait_for(lambda: len(self._items) < self._size)
            self._items.append(item)
            self._stages.changed.notify_all()

    def get(self) -> Any:
        """Wait for an item, and take the oldest."""
        with self._stages.changed:
            self._stages.wait_for(lambda: bool(self._items))
            item = self._items.popleft()
            self._stages.changed.notify_all()
            return item


class Stages:
    """The threads and queues of one pipeline; a `with` block waits for the end of all threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self._error: BaseException | None = None

    def channel(self, size: int) -> Channel:
        """A queue of at most so many items."""
        return Channel(self, size)

    def start(self, name: str, work: Callable[[], object]) -> None:
        """Run a stage in a thread of its own."""

        def run() -> None:
            try:
                work()
            except Stopped:
                pass
            except BaseException as error:  # raised by the main thread, whose failure it is
                self._stop(error)

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait_for(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, with `changed` acquired. Raises Stopped after a stop."""
        self.changed.wait_for(lambda: self._stopped or holds())
        if self._stopped:
            raise Stopped

    def _stop(self, error: BaseException | None) -> None:
        with self.changed:
            if self._error is None:
                self._error = error
            self._stopped = True
            self.changed.notify_all()

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._stop(None)
        for thread in self._threads:
            thread.join()
        if self._error is not None:
            raise self._error
