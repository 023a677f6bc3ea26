"""Whole-graph training: every epoch is one exact or approximate pass over all vertices."""

NAMES = {
    "single": "gnnbench.approaches.whole_graph.single:APPROACH",
    "partition": "gnnbench.approaches.whole_graph.partition:APPROACH",
    "bns": "gnnbench.approaches.whole_graph.bns:APPROACH",
    "pipegcn": "gnnbench.approaches.whole_graph.pipegcn:APPROACH",
    "mixture": "gnnbench.approaches.whole_graph.mixture:APPROACH",
    "mixed-accelerators": "gnnbench.approaches.whole_graph.mixed_accelerators:APPROACH",
}
