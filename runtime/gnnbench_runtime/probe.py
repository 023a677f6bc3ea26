"""The speed probe: a fixed little work, timed around each run, that shows a drifting machine.

It is the same everywhere and belongs to no workload: a product of two 256 × 256 matrices four
times, a stream over 8 MB twice, a gather of 100,000 rows of 128 bytes. About 4 ms on one core of
2024; with warm-up and repeats about 30 ms.
"""

from __future__ import annotations

import statistics
from time import perf_counter

import torch

ROUNDS = 5


def speed_probe(device: torch.device | None = None, rounds: int = ROUNDS) -> float:
    """Return the median seconds of one round of the fixed work, after one warm-up round."""
    device = device or torch.device("cpu")
    left = torch.full((256, 256), 0.5, device=device)
    product = torch.empty_like(left)
    line = torch.ones(2_000_000, device=device)
    copied = torch.empty_like(line)
    rows = torch.ones((50_000, 32), device=device)
    picks = (torch.arange(100_000, device=device) * 7919) % 50_000
    gathered = torch.empty((100_000, 32), device=device)

    def settle() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def once() -> float:
        begin = perf_counter()
        for _ in range(4):
            torch.mm(left, left, out=product)
        for _ in range(2):
            torch.add(line, 1.0, out=copied)
        torch.index_select(rows, 0, picks, out=gathered)
        settle()
        return perf_counter() - begin

    settle()
    once()
    return statistics.median(once() for _ in range(rounds))
