"""Published rows and their plans written in one line; what a test does not state is a default."""

from __future__ import annotations

from typing import Any, NamedTuple

from gnnbench.approaches.base import Layout
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.writing.shape import StackShape, stack_shape
from gnnbench.plan import Plan
from gnnbench.published.released import as_released
from gnnbench.published.rows import PublishedRow
from gnnbench.published.systems import Case, case_of

PAPER = "4x Tesla M40-24GB per host, 2x Xeon E5-2620v3"
LOGGED = "heads=2; use_pp=True; METIS vol; mean up to epoch 999; max over 4 ranks"


def row(**given: Any) -> PublishedRow:
    """Vanilla GraphSAGE on pubmed over four M40, epoch time of 24 ms, but for what is given."""
    cells: dict[str, Any] = {
        "row_id": "made:2",
        "source": "a study",
        "location": "Table 1",
        "system": "Vanilla partition parallel",
        "dataset": "pubmed",
        "model": "GraphSAGE",
        "layers": "3",
        "hidden": "256",
        "hardware": PAPER,
        "gpus": "4",
        "metric": "epoch_time",
        "unit": "s",
        "value": 0.024,
        "notes": "",
    }
    return PublishedRow(**(cells | given))


def disk_row(**given: Any) -> PublishedRow:
    """MariusGNN on ogbn-arxiv from the disk of one A10G's host, but for what is given."""
    cells: dict[str, Any] = {
        "source": "a study of disks",
        "system": "MariusGNN",
        "dataset": "ogbn-arxiv",
        "layers": "2",
        "hidden": "32",
        "fanout": "5;5",
        "batch": "20000",
        "hardware": "1x A10G",
        "storage": "local NVMe",
        "gpus": "1",
        "value": 10.0,
        "notes": "p=64, c=48",
    }
    return row(**(cells | given))


class Planned(NamedTuple):
    """Our plan of a row, the one that the published software carries out, and their model."""

    ours: Plan
    released: Plan
    shape: StackShape
    case: Case


def planned(**given: Any) -> Planned:
    """The plans of a row, all of its ranks on one host."""
    case = case_of(row(**given))
    assert isinstance(case, Case), case
    approach, run, data = APPROACHES.get(case.run.approach), case.run, case.profile
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks, device="cuda")
    plan = approach.plan(data, run, approach.structure(data, run), layout)
    shape = stack_shape(data, run, approach.knobs(run).order)
    return Planned(plan, as_released(plan, shape, case.software), shape, case)


def on_pubmed(*, notes: str = "", **given: Any) -> Planned:
    """The plans of a row on pubmed, four ranks, with a stated halo."""
    return planned(notes=f"{notes}; METIS vol; halo total 3377", **given)


def mini_batch(**given: Any) -> Planned:
    """The plans of DGL's mini-batches on ogbn-products, two ranks."""
    cells = {"system": "DGL", "dataset": "ogbn-products", "layers": "2", "gpus": "2"}
    return planned(**(cells | {"fanout": "5-10", "batch": "1024/GPU"} | given))
