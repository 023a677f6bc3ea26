r"""PyTorch Geometric on the benchmark graph: GraphSAGE on sampled neighbours, and full-graph GCN.

    python -m venv pyg
    pyg/bin/pip install torch==2.13.0 torch-geometric==2.8.1 psutil setuptools wheel ninja
    pyg/bin/pip install --no-build-isolation torch-scatter torch-sparse
    pyg/bin/python benchmarks/peers/pyg.py g.npz [--threads 2] [--epochs 2]

Run by `compare.py` in an environment of its own; gnnbench never imports PyTorch Geometric. Its
neighbour loader needs pyg-lib, or torch-sparse with torch-scatter. Without them the sampled metrics
are null, and `sampled_why` gives PyTorch Geometric's reason. Prints one JSON object with medians
over the epochs after the first.

A batch is not quite that of GraphBolt: each hop expands only the vertices that the hop before
found, so a batch has fewer edges, and both layers are computed on all of its edges. Where the
loader counts vertices and edges by hop (pyg-lib does, torch-sparse does not), an epoch is also
timed with `trim_to_layer`, which skips rows that no later layer needs. The faster epoch is the one
that is compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch_geometric
from torch.nn.functional import cross_entropy, relu
from torch_geometric.data import Data
from torch_geometric.loader import NeighborLoader
from torch_geometric.nn import GCNConv, SAGEConv
from torch_geometric.sampler import NodeSamplerInput
from torch_geometric.utils import trim_to_layer

HIDDEN, FANOUTS_FROM_SEEDS, BATCH, LR = 128, [15, 10], 1024, 1e-2


class TwoLayers(torch.nn.Module):
    """Two graph convolutions of one kind with a ReLU between them."""

    def __init__(self, first: torch.nn.Module, second: torch.nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Any, edges: Any, counts: tuple[list[int], list[int]] | None = None) -> Any:
        """Outputs of the rows; `counts` of vertices and edges by hop drop rows after layer 1."""
        hidden = relu(self.first(x, edges))
        if counts is not None:
            hidden, edges, _ = trim_to_layer(1, *counts, hidden, edges)
        return self.second(hidden, edges)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class Peer:
    """The graph in PyTorch Geometric's form."""

    def __init__(self, path: str) -> None:
        arrays = np.load(path, allow_pickle=False)
        self.x, self.y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
        self.train = torch.from_numpy(np.flatnonzero(arrays["train"]))
        self.edges = torch.from_numpy(np.stack([arrays["src"], arrays["dst"]]))
        self.classes = int(self.y.max()) + 1
        self.data = Data(x=self.x, y=self.y, edge_index=self.edges)
        # One loader for all epochs: it sorts the edges by destination when it is made.
        self.loader = NeighborLoader(
            self.data, FANOUTS_FROM_SEEDS, input_nodes=self.train, batch_size=BATCH, shuffle=True
        )

    def edges_per_s(self, epochs: int) -> float:
        """Edges that are drawn in a second.

        The loader's sampler is called without the loader, which would fetch features.
        """
        draw, rates = self.loader.node_sampler.sample_from_nodes, []
        for _ in range(epochs):
            edges, begin = 0, time.perf_counter()
            for seeds in self.train[torch.randperm(len(self.train))].split(BATCH):
                edges += draw(NodeSamplerInput(input_id=None, node=seeds)).row.numel()
            rates.append(edges / (time.perf_counter() - begin))
        return statistics.median(rates[1:])

    def sage_epoch_s(self, epochs: int, *, trim: bool) -> float:
        """Seconds of an epoch of GraphSAGE on sampled batches."""
        model = TwoLayers(SAGEConv(self.x.shape[1], HIDDEN), SAGEConv(HIDDEN, self.classes))
        optimizer = torch.optim.Adam(model.parameters(), LR)

        def epoch() -> None:
            for batch in self.loader:
                counts = (batch.num_sampled_nodes, batch.num_sampled_edges) if trim else None
                outputs = model(batch.x, batch.edge_index, counts)
                loss = cross_entropy(outputs[: batch.batch_size], batch.y[: batch.batch_size])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return statistics.median([seconds(epoch) for _ in range(epochs)][1:])

    def gcn_epoch_s(self, epochs: int) -> float:
        """Seconds of an epoch of GCN on the full graph; its normalisation is kept after epoch 1."""
        layers = [
            GCNConv(inputs, outputs, cached=True, add_self_loops=False)
            for inputs, outputs in ((self.x.shape[1], HIDDEN), (HIDDEN, self.classes))
        ]
        model = TwoLayers(*layers)
        optimizer = torch.optim.Adam(model.parameters(), LR)

        def epoch() -> None:
            loss = cross_entropy(model(self.x, self.edges)[self.train], self.y[self.train])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return statistics.median([seconds(epoch) for _ in range(epochs)][1:])

    def sampled(self, epochs: int) -> dict[str, Any]:
        """Metrics of the neighbour loader, or the reason why there are none."""
        try:
            counted = "num_sampled_nodes" in next(iter(self.loader))
        except ImportError as error:
            why = str(error).splitlines()[0]
            return {"sample_edges_per_s": None, "sampled_sage_epoch_s": None, "sampled_why": why}
        untrimmed = self.sage_epoch_s(epochs, trim=False)
        trimmed = self.sage_epoch_s(epochs, trim=True) if counted else None
        return {
            "sample_edges_per_s": self.edges_per_s(epochs),
            "sampled_sage_epoch_s": min(s for s in (untrimmed, trimmed) if s is not None),
            "untrimmed_sage_epoch_s": untrimmed,
            "trimmed_sage_epoch_s": trimmed,
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("graph")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    peer = Peer(args.graph)
    result = {
        "peer": f"pyg {torch_geometric.__version__}",
        **peer.sampled(args.epochs),
        "full_graph_gcn_epoch_s": peer.gcn_epoch_s(args.epochs),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
