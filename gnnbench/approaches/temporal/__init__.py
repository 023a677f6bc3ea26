"""Continuous training on edge streams."""

NAMES = {
    "edgebank": "gnnbench.approaches.temporal.edgebank:APPROACH",
    "continuous": "gnnbench.approaches.temporal.continuous:APPROACH",
    "rebuild": "gnnbench.approaches.temporal.rebuild:APPROACH",
    "tgl": "gnnbench.approaches.temporal.tgl:APPROACH",
}
