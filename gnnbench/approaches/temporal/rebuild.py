"""`rebuild`: a system for static graphs on a stream: every increment it starts over.

The graph is built anew from all events so far, and the model is trained from scratch on all of
them. With `learns = "new"`, only the graph is built anew and the rest is as in `continuous`, which
separates the two shares of continuous learning's gain.

Closed forms (c_k events up to the end of increment k, c_0 of the offline phase, n increments, b
events of a batch):

    inserted       c_k edges in increment k, where `continuous` inserts c_k - c_(k-1)
    in all         (n + 1) / 2 times the edges of the stream if increments are even and c_0 = 0
    learnt from    epochs c_k events in increment k, in epochs ceil(c_k / b) steps
    predicted      c_k - c_(k-1) events, as by `continuous`

The bytes of a step are those of `continuous`: a gradient of all parameters, queries and replies.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from gnnbench.approaches.base import Probe
from gnnbench.approaches.card import Look, Promise
from gnnbench.approaches.temporal.continuous import Continuous, ContinuousKnobs, tiny_flow
from gnnbench.approaches.temporal.schedule import Protocol
from gnnbench.data.stream import EdgeStream
from gnnbench.spec import RunSpec
from gnnbench.strict import choices


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildKnobs(ContinuousKnobs):
    """Knobs of `rebuild`: those of `continuous`, and what an increment learns from.

    learns: "all" events so far, from scratch, in as many passes as there are epochs; or the "new"
    ones, as `continuous` does.
    """

    learns: str = field(default="all", metadata=choices("all", "new"))


class Rebuild(Continuous):
    """Card and plan of `rebuild`."""

    name = "rebuild"
    title = "Rebuild and retrain"
    paper = "the practice of systems for static graphs, such as Zhou et al., TGL, VLDB 2022"
    summary = "at every increment the graph is rebuilt and the model trained from scratch"
    promise = Promise(
        kind="exact",
        text="Losses, parameters and metrics equal those of one rank on the same batches.",
        reference="rebuild",
    )
    look = Look(colour="#882255", marker="8", dashed=True)
    knobs_type = RebuildKnobs

    def examples(self) -> list[RunSpec]:
        one: dict[str, Any] = {"size": 64, "fanouts_from_seeds": (5,)}
        few = {"increments": 2, "epochs": 1}
        tgat, tgn = ({"kind": kind, "layers": 1} for kind in ("tgat", "tgn"))
        return [
            tiny_flow(self.name, 1, model=tgat, batch=one, training=few, knobs={"learns": "new"}),
            tiny_flow(self.name, 2, model=tgn, batch=one, training=few),
        ]

    def probes(self, probe: Probe) -> list[RunSpec]:
        """None: its operations are those of `continuous`."""
        return []

    def problems(self, run: RunSpec) -> list[str]:
        """Who learns from everything has nothing to replay."""
        knobs: RebuildKnobs = self.knobs(run)
        lines = super().problems(run)
        if knobs.learns == "all" and knobs.replay:
            lines.append(f"replay: found {knobs.replay}, and all events are learnt from; set 0")
        return lines

    def skip_reason(self, run: RunSpec, data: Any = None) -> str | None:
        """Without increments there is nothing to rebuild."""
        if not run.training.increments:
            return f"{self.name} starts over in every increment: set training.increments"
        return super().skip_reason(run, data)

    def protocol(self, data: EdgeStream, run: RunSpec) -> Protocol:
        """As `continuous`, from the start each time."""
        everything = self.knobs(run).learns == "all"
        return replace(super().protocol(data, run), rebuilds=True, relearns=everything)


APPROACH = Rebuild()
