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
# # Reproduce a paper's figure
#
# MixGCN claims that its mixture of parallelism sends a bounded number of bytes, whatever the
# number of workers, while the halo of partition parallelism grows. This notebook draws bytes over
# workers twice: at the paper's scale by simulation, and on this machine with the bytes that
# trained ranks counted.

# %%
import gnnbench as gb

MODELS = {"gcn": {"kind": "gcn", "hidden": 256, "layers": 3}}
APPROACHES = ["mixture", "partition"]

# %% [markdown]
# ## At the paper's scale
#
# Reddit on 2 to 64 A100. Bytes follow from the plan. For partitions they need the halo, which the
# profile of Reddit holds; for the mixture they need the number of vertices and the widths alone.

# %%
large = gb.load_suite(
    {
        "name": "mixgcn",
        "datasets": {"reddit": {"profile": "reddit"}},
        "models": MODELS,
        "runs": [{"dataset": "reddit", "model": "gcn", "approach": APPROACHES, "ranks": 2}],
    }
)
gb.predict(large, "p4de.24xlarge", ranks=[2, 4, 8, 16, 32, 64], results="large")
rows = gb.compare("large")
rows.figure("volume")

# %%
sent = rows.frame.pivot(index="ranks", columns="approach", values="planned_bytes")
(sent / 1e9).round(2)

# %% [markdown]
# The growth from 8 to 64 workers is the number behind the claim.

# %%
for approach in APPROACHES:
    growth = sent.loc[64, approach] / sent.loc[8, approach]
    print(f"{approach}: {growth:.2f} times the bytes on 64 workers as on 8")

# %% [markdown]
# ## Fewer bytes, less time?
#
# Bytes are exact, time depends on the machine. The interval says how well the constants are
# known.

# %%
rows.figure("scaling")

# %% [markdown]
# ## Counted on this machine
#
# A plan could be wrong about the software. So train it: every rank counts the bytes that it hands
# to collectives, and the comparison must find them equal to the plan.

# %%
small = gb.load_suite(
    {
        "name": "mixgcn-here",
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
        "models": {"gcn": {"kind": "gcn", "hidden": 32, "layers": 3}},
        "training": {"epochs": 3},
        "runs": [{"dataset": "planted", "model": "gcn", "approach": APPROACHES, "ranks": 2}],
    }
)
gb.run(small, "small", device="cpu")
gb.predict(small, "cpu-2core", results="small")
here = gb.compare("small").frame
here[["approach", "ranks", "status", "counted_bytes", "planned_bytes", "bytes_equal"]]

# %% [markdown]
# `gnnbench claims mixgcn` tests this claim and the other claims of the paper in the same two ways
# and prints a verdict for each.
