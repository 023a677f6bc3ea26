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
# # Compare approaches on my graph
#
# Train three approaches on a graph of your own, predict the same runs, and read which is fastest.
# The graph here is generated so that the notebook needs no data; replace the file by yours.

# %%
import numpy as np
from scipy import sparse

import gnnbench as gb

# %% [markdown]
# ## A graph in a file
#
# An `.npz` with the adjacency in CSR parts, a feature matrix and labels is one of the formats
# that are recognised. `gnnbench list datasets` lists all of them.

# %%
NODES, CLASSES, WIDTH = 3_000, 5, 32
rng = np.random.default_rng(0)
labels = rng.integers(CLASSES, size=NODES)
ends = rng.integers(NODES, size=(2, 60_000))
alike = labels[ends[0]] == labels[ends[1]]
ends = ends[:, alike | (rng.random(len(alike)) < 0.2)]
adjacency = sparse.csr_matrix((np.ones(ends.shape[1]), tuple(ends)), shape=(NODES, NODES))
features = np.eye(CLASSES, WIDTH)[labels] + rng.normal(scale=0.8, size=(NODES, WIDTH))
np.savez(
    "my-graph.npz",
    adj_data=adjacency.data,
    adj_indices=adjacency.indices,
    adj_indptr=adjacency.indptr,
    adj_shape=adjacency.shape,
    attr_matrix=features.astype(np.float32),
    labels=labels,
)
graph = gb.load_dataset("my-graph.npz")
print(f"{graph.num_nodes:,} nodes, {graph.num_edges:,} stored edges, {graph.num_classes} classes")

# %% [markdown]
# ## What the graph costs when it is partitioned
#
# The halo of a partition is the set of rows that a rank needs from other ranks. Halo copies per
# node decide what partition parallelism sends.

# %%
shape = gb.profile(graph, parts=(2, 4, 8), methods=("metis-vol",))
for point in shape.halo:
    print(f"{point.parts} parts: {point.halo_per_node:.2f} halo copies per node")

# %% [markdown]
# ## A suite names the runs
#
# The same tables can stand in a TOML file. The file has no split, so the suite asks for one.

# %%
suite = gb.load_suite(
    {
        "name": "mine",
        "datasets": {"mine": {"path": "my-graph.npz", "split": {"train": 0.6, "val": 0.2}}},
        "models": {"sage": {"kind": "sage", "hidden": 32, "layers": 2}},
        "batch": {"size": 512, "fanouts_from_seeds": [10, 5]},
        "training": {"epochs": 6},
        "runs": [
            {"dataset": "mine", "model": "sage", "approach": "single"},
            {
                "dataset": "mine",
                "model": "sage",
                "approach": ["partition", "sampled"],
                "ranks": 2,
            },
        ],
    }
)
[run.run_id for run in suite.runs]

# %% [markdown]
# ## Train
#
# Every rank is a process of this machine. Finished runs are not repeated.

# %%
for record in gb.run(suite, "results", device="cpu"):
    print(f"{record.run_id}: {record.status} {record.reason}")

# %% [markdown]
# ## Predict the same runs, and more ranks
#
# `cpu-2core` is a datasheet, so these times rank approaches only. `gb.calibrate("cluster.toml")`
# measures your machine within a few minutes and makes predictions that can be compared in
# seconds.

# %%
records = gb.predict(suite, "cpu-2core", ranks=[1, 2, 4, 8], results="results")
len(records)

# %% [markdown]
# ## Compare
#
# The answer comes first: the fastest approach, its gain over the next, how far it scales.

# %%
rows = gb.compare("results")
print(rows.answer)

# %%
SHOWN = ["approach", "ranks", "status", "measured_period_s", "predicted_period_s", "bytes_equal"]
rows.frame[SHOWN]

# %% [markdown]
# The bytes that the runtime counted equal those of the plan as integers: a difference fails the
# run. A figure of the report holds its numbers in `frame` and saves as PDF, SVG, PNG or CSV.

# %%
scaling = rows.figure("scaling")
scaling.save("scaling.pdf")
scaling

# %% [markdown]
# `gb.report("results")` writes the whole page with all figures, tables and a folder for LaTeX.
