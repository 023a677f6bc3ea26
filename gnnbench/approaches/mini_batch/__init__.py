"""Mini-batch training: every optimiser step is computed on a sample of the graph."""

NAMES = {
    "gist": "gnnbench.approaches.mini_batch.gist:APPROACH",
    "sampled": "gnnbench.approaches.mini_batch.sampled:APPROACH",
}
