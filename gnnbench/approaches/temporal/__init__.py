"""Continuous training on edge streams."""

NAMES = {
    "edgebank": "gnnbench.approaches.temporal.edgebank:APPROACH",
    "gnnflow": "gnnbench.approaches.temporal.gnnflow:APPROACH",
    "stream-rebuild": "gnnbench.approaches.temporal.rebuild:APPROACH",
}
