"""Whole-graph training: every epoch is one exact or approximate pass over all vertices."""

NAMES = {
    "bns": "gnnbench.approaches.whole_graph.bns:APPROACH",
    "cagnet-1.5d": "gnnbench.approaches.whole_graph.cagnet:ONE_AND_A_HALF_D",
    "cagnet-1d": "gnnbench.approaches.whole_graph.cagnet:ONE_D",
    "cagnet-2d": "gnnbench.approaches.whole_graph.cagnet2d:APPROACH",
    "mixed-accelerators": "gnnbench.approaches.whole_graph.mixed_accelerators:APPROACH",
    "mixture": "gnnbench.approaches.whole_graph.mixture:APPROACH",
    "partition": "gnnbench.approaches.whole_graph.partition:APPROACH",
    "pipegcn": "gnnbench.approaches.whole_graph.pipegcn:APPROACH",
    "single": "gnnbench.approaches.whole_graph.single:APPROACH",
}
