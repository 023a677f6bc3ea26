# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Add my own approach
#
# An approach is a card with a plan, and a trainer. This one is partition parallelism with a
# partitioner of its own: vertices in breadth-first order, cut into equal pieces. Only the
# structure is new, so the plan and the trainer of `partition` serve it unchanged.

# %%
import os
import subprocess
import sys
from pathlib import Path

import gnnbench as gb

# %% [markdown]
# ## The card
#
# The class attributes are the card: name, paper, promise, look. `structure` decides which
# vertices each rank owns. Trainer and plan both call it, so that they cannot disagree. On a
# profile there are no vertices to order, and the approach says so. A knob of its own would be a
# field of a dataclass that extends `PartitionKnobs`, named as `knobs_type` of the card.

# %%
CARD = '''
"""`breadth-first`: partition parallelism over pieces of a breadth-first order.

Volume per epoch is that of `partition` with this partition's halo copies.
"""

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order

from gnnbench.approaches.base import example
from gnnbench.approaches.card import Look
from gnnbench.approaches.whole_graph.partition import Partition, PartitionStructure
from gnnbench.data.graph import Graph
from gnnbench.errors import Unsupported


def owners(graph, ranks):
    """The rank of every vertex, int32 [N]: equal pieces of a breadth-first order."""
    ones = np.ones(graph.num_edges, np.int8)
    shape = (graph.num_nodes, graph.num_nodes)
    adjacency = sparse.csr_matrix((ones, graph.indices, graph.indptr), shape=shape)
    order, left = [], np.ones(graph.num_nodes, bool)
    while left.any():
        found = breadth_first_order(adjacency, left.argmax(), return_predecessors=False)
        found = found[left[found]]
        left[found] = False
        order.append(found)
    place = np.empty(graph.num_nodes, np.int64)
    place[np.concatenate(order)] = np.arange(graph.num_nodes)
    return (place * ranks // graph.num_nodes).astype(np.int32)


class BreadthFirst(Partition):
    name = "breadth-first"
    title = "Partition parallel over a breadth-first order"
    paper = "none"
    summary = "partitions are equal pieces of a breadth-first order"
    look = Look(colour="#A6761D", marker="d")
    published = ()

    def examples(self):
        return [example(self.name), example(self.name, 3, model={"kind": "sage", "dropout": 0.5})]

    def prepare(self, data, run, cache=None):
        """Nothing: the order is cheap."""

    def structure(self, data, run, cache=None):
        if run.ranks == 1:
            return PartitionStructure.whole(data)
        if not isinstance(data, Graph):
            raise Unsupported("breadth-first: a profile has no vertices to order")
        knobs = self.knobs(run)
        return PartitionStructure.of_assignment(
            data, owners(data, run.ranks), run.ranks, split_entries=self.needs_split(knobs)
        )


APPROACH = BreadthFirst()
'''
package = Path("breadth-first").resolve()
package.mkdir(exist_ok=True)
written = (package / "breadth_first.py").write_text(CARD.lstrip())

# %% [markdown]
# ## Its name
#
# gnnbench finds approaches of other packages by an entry point. `pip install` writes it from
# these lines of `pyproject.toml`:
#
# ```toml
# [project.entry-points."gnnbench.approaches"]
# breadth-first = "breadth_first:APPROACH"
# ```
#
# Here it is written by hand, and the folder is put on the path of this process and of the ranks.

# %%
about = package / "breadth_first-1.0.dist-info"
about.mkdir(exist_ok=True)
METADATA = "Metadata-Version: 2.1\nName: breadth-first\nVersion: 1.0\n"
(about / "METADATA").write_text(METADATA)
(about / "entry_points.txt").write_text(
    "[gnnbench.approaches]\nbreadth-first = breadth_first:APPROACH\n"
)
sys.path.insert(0, str(package))
os.environ["PYTHONPATH"] = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])

# %% [markdown]
# ## Is it what the card promises?
#
# `conform` trains and simulates the examples of the card: every step as planned, equal to a
# single device in float64, memory within the plan.

# %%
command = [sys.executable, "-m", "gnnbench", "conform", "breadth-first"]
done = subprocess.run(command, capture_output=True, text=True, check=False)
print(done.stdout or done.stderr)

# %% [markdown]
# ## Is it any good?
#
# It sends more than METIS does, on a graph whose communities METIS finds.

# %%
suite = gb.load_suite(
    {
        "name": "mine",
        "datasets": {
            "planted": {
                "generator": "planted_partition",
                "options": {
                    "num_nodes": 1500,
                    "mean_degree": 12,
                    "num_classes": 6,
                    "num_features": 32,
                },
            }
        },
        "models": {"gcn": {"kind": "gcn", "hidden": 32}},
        "training": {"epochs": 3},
        "runs": [
            {
                "dataset": "planted",
                "model": "gcn",
                "approach": ["partition", "breadth-first"],
                "ranks": 2,
            }
        ],
    }
)
gb.run(suite, "results", device="cpu")
gb.predict(suite, "cpu-2core", ranks=[2, 4, 8, 16], results="results")
rows = gb.compare("results")
rows.frame[["approach", "ranks", "status", "counted_bytes", "planned_bytes", "bytes_equal"]]

# %%
rows.figure("volume")

# %% [markdown]
# An approach whose training is new needs a trainer too: `CONTRIBUTING.md` has the steps, and
# `tests/worked_example/` is a complete package with card, plan and trainer.
