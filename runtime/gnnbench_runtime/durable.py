"""Trainers that survive: what is committed after every period, and how a run goes on from there.

A trainer that has an attribute `durable` is committed by the worker when a period has ended. A run
that was killed and is started again goes on behind the last committed period: its records and the
rows of its ledger are kept. Only the period under way is lost, and the synchronous modes learn what
an unbroken run learns, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from gnnbench_runtime.generations import Generations, Layout
from gnnbench_runtime.job import generations_folder
from gnnbench_runtime.protocol import RankContext


def generations_of(context: RankContext, layout: Layout | None) -> Generations:
    """The generations of this rank's run, with the last commit if there is one."""
    return Generations(generations_folder(context.cache, context.run.run_id), layout)


class Durable:
    """The durable state of a trainer.

    Args:
        generations: of the run.
        state: returns the small tensors that the next period depends on.
        restore: takes them up.
    """

    def __init__(
        self,
        generations: Generations,
        state: Callable[[], dict[str, Tensor]],
        restore: Callable[[dict[str, Tensor]], None],
    ) -> None:
        self.generations, self._state, self._restore = generations, state, restore

    def commit(self, periods: list[dict[str, Any]], ledger: bytes = b"") -> None:
        """Keep the present state.

        Args:
            periods: records of all periods that have ended.
            ledger: rows written since the last commit.
        """
        self.generations.commit(self._state(), {"periods": periods}, ledger=ledger)

    def resume(self) -> list[dict[str, Any]]:
        """Take up the last commit; return the records of its periods, none if there is none."""
        last = self.generations.last
        if last is None:
            return []
        self._restore(self.generations.tensors())
        periods: list[dict[str, Any]] = last.progress["periods"]
        return list(periods)

    def ledger(self) -> bytes:
        """The ledger's rows of the committed periods, header included."""
        return b"" if self.generations.last is None else self.generations.ledger()
