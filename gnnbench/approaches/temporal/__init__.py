"""Continuous training on edge streams."""

NAMES = {
    "gnnflow": "gnnbench.approaches.temporal.gnnflow:APPROACH",
}
