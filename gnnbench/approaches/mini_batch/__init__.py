"""Mini-batch training: every optimiser step is computed on a sample of the graph."""

NAMES = {"sampled": "gnnbench.approaches.mini_batch.sampled:APPROACH"}
