"""Continuous training on edge streams."""

NAMES = {
    "gnnflow": "gnnbench.approaches.temporal.gnnflow:APPROACH",
    "rebuild": "gnnbench.approaches.temporal.rebuild:APPROACH",
}
