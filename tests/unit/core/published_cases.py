"""A published row written in one line; what a test does not care about is a plain default."""

from __future__ import annotations

from typing import Any

from gnnbench.published.rows import PublishedRow

PAPER = "4x Tesla M40-24GB per host, 2x Xeon E5-2620v3"
LOGGED = "heads=2; use_pp=True; METIS vol; mean up to epoch 999; max over 4 ranks"


def row(**given: Any) -> PublishedRow:
    """Vanilla GraphSAGE on pubmed over four M40, epoch time of 24 ms, but for what is given."""
    cells: dict[str, Any] = {
        "row_id": "made:2", "source": "a study", "location": "Table 1",
        "system": "Vanilla partition parallel", "dataset": "pubmed", "model": "GraphSAGE",
        "layers": "3", "hidden": "256", "hardware": PAPER, "gpus": "4", "metric": "epoch_time",
        "unit": "s", "value": 0.024, "notes": "",
    }  # fmt: skip
    return PublishedRow(**(cells | given))
