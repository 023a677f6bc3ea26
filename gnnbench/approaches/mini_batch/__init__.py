"""Mini-batch training: every optimiser step is computed on a sample of the graph."""

NAMES = {
    "cluster-gcn": "gnnbench.approaches.mini_batch.cluster_gcn:APPROACH",
    "gist": "gnnbench.approaches.mini_batch.gist:APPROACH",
    "graphsaint": "gnnbench.approaches.mini_batch.graphsaint:APPROACH",
    "labor": "gnnbench.approaches.mini_batch.labor:APPROACH",
    "ladies": "gnnbench.approaches.mini_batch.ladies:APPROACH",
    "p3": "gnnbench.approaches.mini_batch.p3:APPROACH",
    "sampled": "gnnbench.approaches.mini_batch.sampled:APPROACH",
}
