"""Mini-batch training: every optimiser step is computed on a sample of the graph."""

NAMES = {
    "gist": "gnnbench.approaches.mini_batch.gist:APPROACH",
    "labor": "gnnbench.approaches.mini_batch.labor:APPROACH",
    "ladies": "gnnbench.approaches.mini_batch.ladies:APPROACH",
    "sampled": "gnnbench.approaches.mini_batch.sampled:APPROACH",
}
