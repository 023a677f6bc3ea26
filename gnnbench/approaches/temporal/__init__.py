"""Continuous training on edge streams."""

NAMES = {
    "gnnflow": "gnnbench.approaches.temporal.gnnflow:APPROACH",
    "stream-rebuild": "gnnbench.approaches.temporal.rebuild:APPROACH",
}
