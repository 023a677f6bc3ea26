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
# # Predict before buying
#
# Which machine trains a graph in time and within the budget, with which approach? The simulator
# answers without a GPU, without torch and without the graph: a stored profile of it says how
# large halos and sampled batches are.

# %%
import gnnbench as gb

# %% [markdown]
# ## The question in one call
#
# ogbn-products with features of 100 GB, on eight A100 in one host, on two hosts of four, or on
# eight T4. A machine is written as devices × kind; `:4` puts four on a host.

# %%
answer = gb.advise(
    "ogbn-products",
    ["8xa100-80", "8xa100-80:4", "8xt4"],
    facts={"features": "100GB"},
    approaches=["partition", "pipegcn", "sampled"],
    epochs=100,
)
print(answer)

# %% [markdown]
# The same as a table. Times are seconds of the whole training; the interval is at 90 %.

# %%
SHOWN = ["machine", "approach", "total_s", "low_s", "high_s", "usd", "free_memory"]
answer.machines[SHOWN].round(3)

# %% [markdown]
# Every price has a date, and every constant can be replaced. What if the rent were 20 USD an
# hour?

# %%
dear = gb.advise(
    "ogbn-products",
    ["8xp4de.24xlarge"],
    facts={"features": "100GB"},
    constants={"price.usd_per_hour": 20},
    approaches=["partition"],
)
dear.machines[["machine", "approach", "total_s", "usd"]].round(3)

# %% [markdown]
# ## How far does it scale?
#
# GraphSAGE on Reddit (233 thousand nodes, 115 million stored edges) on 1 to 64 A100. The cluster
# comes from datasheets and published measurements: the grade of a prediction says how well its
# constants are known.

# %%
suite = gb.load_suite(
    {
        "name": "reddit",
        "datasets": {"reddit": {"profile": "reddit"}},
        "models": {"sage": {"kind": "sage", "hidden": 256, "layers": 2}},
        "batch": {"size": 8192, "fanouts_from_seeds": [15, 10]},
        "runs": [{"dataset": "reddit", "model": "sage", "approach": ["partition", "sampled"]}],
    }
)
gb.predict(suite, "dgx-a100", ranks=[1, 2, 4, 8, 16, 32, 64], results="reddit")
rows = gb.compare("reddit")
print(rows.answer)

# %%
rows.figure("scaling")

# %% [markdown]
# ## Where the time goes
#
# Seconds per epoch by phase on the slowest rank, waiting included.

# %%
rows.figure("phases")

# %% [markdown]
# ## Why partitions scale as they do
#
# Halo copies per node grow with the number of parts: on a dense graph most rows that a rank needs
# belong to others.

# %%
reddit = gb.profile("reddit")
for point in reddit.halo:
    if point.method == "metis-cut":
        print(f"{point.parts:>3} parts: {point.halo_per_node:.2f} halo copies per node")

# %% [markdown]
# `gnnbench sweep` asks thousands of such questions at once, and `gnnbench profile fit` makes a
# profile of your own graph from a few counts.
