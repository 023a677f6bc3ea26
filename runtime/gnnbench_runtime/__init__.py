"""Real training: ranks, collectives, kernels and models on torch, each step timed and counted."""
