"""npz of dense arrays with ten official splits (Platonov et al., ICLR 2023)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gnnbench.data.formats.reading import class_labels, only_file, reading, stem
from gnnbench.data.graph import Graph, from_edges
from gnnbench.errors import SpecError


def read(path: Path, *, split: int = 0, name: str | None = None) -> Graph:
    """Read one `.npz` (or the folder of one); `split` picks the official split, 0..9."""
    file = only_file(path, ["*.npz"], "npz of dense arrays")
    with reading(file, "an npz of dense arrays"), file.open("rb") as stream:
        parts = np.load(stream, allow_pickle=False)
        features = parts["node_features"].astype(np.float32)
        raw = parts["node_labels"]
        edges = parts["edges"].astype(np.int64).reshape(-1, 2)
        masks = {part: parts[f"{part}_masks"].astype(np.bool_) for part in ("train", "val", "test")}
    labels, num_classes = class_labels(raw, file)
    num_splits = len(masks["train"])
    if not 0 <= split < num_splits:
        raise SpecError(f"{file}: split: found {split}, allowed 0..{num_splits - 1}")
    return from_edges(
        name or stem(file),
        edges[:, 0],
        edges[:, 1],
        len(features),
        features=features,
        labels=labels,
        num_classes=num_classes,
        train_mask=masks["train"][split],
        val_mask=masks["val"][split],
        test_mask=masks["test"][split],
        notes={"split": split},
    )
