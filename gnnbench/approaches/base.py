"""What an approach is: a card, typed knobs, a rank rule, a structure and a plan."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.errors import suggest
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.strict import build

GraphLike = Graph | GraphProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How ranks lie on hosts. `device`: "cuda" where what is exchanged starts on an accelerator."""

    world_size: int
    ranks_per_host: int
    device: str = "cpu"

    @property
    def num_hosts(self) -> int:
        return -(-self.world_size // self.ranks_per_host)


class Approach(ABC):
    """One way to train. Instances are stateless; the runtime part is named, not imported.

    `runtime` is "module:Class" of the trainer. `knobs_type` is a frozen dataclass whose fields are
    the knobs; their metadata give bounds and choices. `attention`: whether it can train models
    whose sums have weights computed from the layer's input; `no_attention`: why it cannot.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    summary: ClassVar[str]
    exact: ClassVar[bool]
    attention: ClassVar[bool] = False
    no_attention: ClassVar[str] = "it sums up with fixed weights, attention's change in every layer"
    runtime: ClassVar[str]
    knobs_type: ClassVar[type[Any]]

    def parse_knobs(
        self, table: Mapping[str, Any], where: str, problems: list[str], *, shared: bool = False
    ) -> Any:
        """Return the knobs, adding every problem found.

        With `shared`, the table serves several approaches of one [[runs]] entry: keys that another
        approach knows are passed over, keys that none knows are problems.
        """
        from gnnbench import registry

        own = {f.name for f in dataclasses.fields(self.knobs_type)}
        if shared:
            known = own | registry.knob_names()
            for key in table:
                if key not in known:
                    problems.append(f"{where}.{key}: unknown knob, {suggest(key, known)}")
            table = {key: value for key, value in table.items() if key in own}
        return build(self.knobs_type, table, where, problems)

    def knobs(self, run: RunSpec) -> Any:
        """The typed knobs of a run whose spec was checked before."""
        return self.knobs_type(**{k: _frozen(v) for k, v in run.knobs.items()})

    def problems(self, run: RunSpec) -> list[str]:
        """What is wrong with a run's knobs in view of its model; told when the suite is read."""
        return []

    def cannot_run(self, run: RunSpec, graph: GraphLike | None = None) -> str | None:
        """Why this run cannot be done, or None: its model, then the approach's `skip_reason`."""
        from gnnbench import registry

        if registry.model(run.model.kind).attention and not self.attention:
            return f"{self.name} cannot train {run.model.kind}: {self.no_attention}"
        return self.skip_reason(run, graph)

    def skip_reason(self, run: RunSpec, graph: GraphLike | None = None) -> str | None:
        """The approach's own part of `cannot_run`; asked before anything is loaded, and after."""
        return None

    def prepare(  # noqa: B027 - most approaches have nothing to prepare
        self, graph: Graph, run: RunSpec, cache: Path | None = None
    ) -> None:
        """Do once, before ranks start, what is dear and shared (a partition); kept in `cache`."""

    @abstractmethod
    def structure(self, graph: GraphLike, run: RunSpec, cache: Path | None = None) -> Any:
        """Decide which nodes, edges and blocks are involved; a profile answers with sizes only."""

    @abstractmethod
    def plan(self, graph: GraphLike, run: RunSpec, structure: Any, layout: Layout) -> Plan:
        """Write down the steps of every rank."""


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
