"""A transfer under way: what `comm`'s asynchronous collectives return."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import torch


class Pending:
    """A transfer under way. `wait` makes its result usable; it blocks the host only on CPU."""

    def __init__(
        self,
        future: Future[Any] | None = None,
        event: Any = None,
        device: torch.device | None = None,
    ) -> None:
        self._future, self._event, self._device = future, event, device

    def wait(self) -> None:
        if self._future is not None:
            self._future.result()
        if self._event is not None:
            torch.cuda.current_stream(self._device).wait_event(self._event)

    def done(self) -> bool:
        """Tell whether the transfer has ended, without waiting."""
        if self._future is not None:
            return self._future.done()
        return self._event is None or bool(self._event.query())
