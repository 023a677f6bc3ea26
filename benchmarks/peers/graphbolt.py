r"""GraphBolt (DGL 2.1) on the benchmark graph: layer-neighbour sampling, and its GraphSAGE epoch.

    python -m venv peers
    peers/bin/pip install torch==2.2.1 dgl==2.1.0 torchdata==0.7.1 "numpy<2" pandas pydantic pyyaml
    peers/bin/python benchmarks/peers/graphbolt.py g.npz [--threads 2] [--epochs 5]

Run by `compare.py` in an environment of its own; gnnbench never imports DGL. Prints one JSON
object with medians over the epochs after the first.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import dgl
import dgl.graphbolt as gb
import numpy as np
import torch
from dgl.nn import SAGEConv
from torch.nn.functional import cross_entropy, relu

HIDDEN, FANOUTS_FROM_SEEDS, BATCH, LR = 128, [15, 10], 1024, 1e-2


class Sage(torch.nn.Module):
    """GraphSAGE of two layers with the mean aggregator."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.first = SAGEConv(inputs, HIDDEN, "mean")
        self.second = SAGEConv(HIDDEN, classes, "mean")

    def forward(self, blocks: Any, x: Any) -> Any:
        return self.second(blocks[1], relu(self.first(blocks[0], x)))


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class Peer:
    """The graph in GraphBolt's form."""

    def __init__(self, path: str) -> None:
        arrays = np.load(path, allow_pickle=False)
        self.x, self.y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
        train = torch.from_numpy(np.flatnonzero(arrays["train"]))
        pairs = torch.from_numpy(arrays["src"]), torch.from_numpy(arrays["dst"])
        graph = dgl.graph(pairs, num_nodes=len(self.y))
        indptr, indices, _ = graph.adj_tensors("csc")
        self.topology = gb.fused_csc_sampling_graph(indptr, indices)
        features = {("node", None, "feat"): gb.TorchBasedFeature(self.x)}
        self.features = gb.BasicFeatureStore(features)
        self.items = gb.ItemSet((train, self.y[train]), names=("seed_nodes", "labels"))

    def loader(self, sampler: str, *, fetch: bool) -> Any:
        pipe = gb.ItemSampler(self.items, batch_size=BATCH, shuffle=True)
        pipe = getattr(pipe, sampler)(self.topology, FANOUTS_FROM_SEEDS)
        if fetch:
            pipe = pipe.fetch_feature(self.features, node_feature_keys=["feat"])
        return gb.DataLoader(pipe, num_workers=0)

    def edges_per_s(self, sampler: str, epochs: int) -> float:
        """Edges that a sampler draws in a second."""
        rates = []
        for _ in range(epochs):
            edges, begin = 0, time.perf_counter()
            for batch in self.loader(sampler, fetch=False):
                edges += sum(one.sampled_csc.indices.numel() for one in batch.sampled_subgraphs)
            rates.append(edges / (time.perf_counter() - begin))
        return statistics.median(rates[1:])

    def epoch_s(self, epochs: int) -> float:
        """Seconds of an epoch of GraphSAGE on sampled blocks."""
        model = Sage(self.x.shape[1], int(self.y.max()) + 1)
        optimizer = torch.optim.Adam(model.parameters(), LR)

        def epoch() -> None:
            for batch in self.loader("sample_neighbor", fetch=True):
                loss = cross_entropy(model(batch.blocks, batch.node_features["feat"]), batch.labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        return statistics.median([seconds(epoch) for _ in range(epochs)][1:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("graph")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    peer = Peer(args.graph)
    result = {
        "peer": f"dgl {dgl.__version__}",
        "sample_edges_per_s": peer.edges_per_s("sample_neighbor", args.epochs),
        "layer_edges_per_s": peer.edges_per_s("sample_layer_neighbor", args.epochs),
        "sampled_sage_epoch_s": peer.epoch_s(args.epochs),
    }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
