"""A plain PyTorch TGN, as the `TGNMemory` example of PyTorch Geometric is set up; for comparison.

Memory, time and embedding of width 100, last message, GRU, ten last neighbours, one layer of
attention with two heads and dropout 0.1, one negative per event, Adam with lr 1e-4, batch 200.
Messages lie in a dictionary of lists per node, as in the example. Nothing here is used by gnnbench.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH, WIDTH, NEIGHBOURS, HEADS, DROPOUT = 200, 100, 10, 2, 0.1


class LastNeighbours:
    """The ten last neighbours that were inserted for each node."""

    def __init__(self, num_nodes: int) -> None:
        self.near = torch.full((num_nodes, NEIGHBOURS), -1)
        self.events = torch.full((num_nodes, NEIGHBOURS), -1)

    def of(self, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Neighbours, events, and the place of the node of each edge among `nodes`."""
        near, events = self.near[nodes], self.events[nodes]
        there = events >= 0
        owner = torch.arange(len(nodes)).unsqueeze(1).expand_as(near)
        return near[there], events[there], owner[there]

    def insert(self, sources: Tensor, destinations: Tensor, events: Tensor) -> None:
        """Insert events in both directions; each node keeps the largest event ids."""
        ends = torch.cat([sources, destinations])
        others = torch.cat([destinations, sources])
        nodes, places = ends.unique(return_inverse=True)
        ids = torch.cat([events, events])
        order = torch.argsort(ids, stable=True)
        order = order[torch.argsort(places[order], stable=True)]
        counts = torch.bincount(places, minlength=len(nodes))
        starts = counts.cumsum(0) - counts
        within = torch.arange(len(order)) - starts[places[order]]
        kept = within >= counts[places[order]] - NEIGHBOURS
        order, within = order[kept], within[kept]
        new = torch.full((len(nodes), NEIGHBOURS), -1)
        new_ids = new.clone()
        slot = counts[places[order]] - 1 - within
        new[places[order], slot], new_ids[places[order], slot] = others[order], ids[order]
        near = torch.cat([new, self.near[nodes]], 1)
        held = torch.cat([new_ids, self.events[nodes]], 1)
        best = held.topk(NEIGHBOURS, 1).indices
        self.near[nodes], self.events[nodes] = near.gather(1, best), held.gather(1, best)


class PlainTgn(nn.Module):
    """The model and its memory."""

    def __init__(self, num_nodes: int, edge_width: int) -> None:
        super().__init__()
        self.time = nn.Linear(1, WIDTH)
        message = 2 * WIDTH + edge_width + WIDTH
        self.gru = nn.GRUCell(message, WIDTH)
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.edge, self.skip = nn.Linear(edge_width + WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.source, self.destination = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.score = nn.Linear(WIDTH, 1)
        self.memory = torch.zeros(num_nodes, WIDTH)
        self.updated = torch.zeros(num_nodes, dtype=torch.long)
        self.stores: tuple[dict[int, tuple[Tensor, ...]], ...] = ({}, {})

    def encode(self, delta: Tensor) -> Tensor:
        """The time encoding of differences."""
        return self.time(delta.to(torch.float32).unsqueeze(1)).cos()

    def fresh(self, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Memory of distinct nodes with their stored messages applied, and its time."""
        parts = []
        for store in self.stores:
            found = [store[n] for n in nodes.tolist() if n in store]
            if found:
                own, other, times, events = (
                    torch.cat(column) for column in zip(*found, strict=True)
                )
                encoded = self.encode(times - self.updated[own])
                rows = [self.memory[own], self.memory[other], edges[events], encoded]
                parts.append((own, torch.cat(rows, 1), times))
        places = torch.full((len(self.memory),), -1)
        places[nodes] = torch.arange(len(nodes))
        aggregated = self.memory.new_zeros(len(nodes), self.gru.input_size)
        updated = self.updated[nodes].clone()
        if parts:
            owner = places[torch.cat([part[0] for part in parts])]
            rows, times = torch.cat([p[1] for p in parts]), torch.cat([p[2] for p in parts])
            newest = torch.zeros(len(nodes), dtype=torch.long).scatter_reduce(
                0, owner, times, "amax", include_self=False
            )
            last = torch.zeros(len(nodes), dtype=torch.long)
            chosen = (times == newest[owner]).nonzero().view(-1)
            last[owner[chosen]] = chosen
            has = torch.zeros(len(nodes), dtype=torch.bool)
            has[owner] = True
            aggregated = torch.where(has.unsqueeze(1), rows[last], aggregated)
            updated = torch.where(has, torch.maximum(newest, updated), updated)
        return self.gru(aggregated, self.memory[nodes]), updated

    def embed(
        self, x: Tensor, updated: Tensor, ends: tuple[Tensor, Tensor], times: Tensor, rows: Tensor
    ) -> Tensor:
        """One layer of attention from `ends[0]` to `ends[1]`."""
        near, owner = ends
        edge = self.edge(torch.cat([rows, self.encode(updated[near] - times)], 1))
        shape = (-1, HEADS, WIDTH // HEADS)
        query = self.query(x).view(shape)[owner]
        key = (self.key(x)[near] + edge).view(shape)
        value = (self.value(x)[near] + edge).view(shape)
        scores = (query * key).sum(-1) / (WIDTH // HEADS) ** 0.5
        top = scores.new_full((len(x), HEADS), -1e30)
        top = top.scatter_reduce(0, owner.unsqueeze(1).expand_as(scores), scores, "amax")
        weights = (scores - top[owner]).exp()
        total = weights.new_zeros(len(x), HEADS).index_add(0, owner, weights)
        weights = functional.dropout(weights / (total[owner] + 1e-16), DROPOUT, self.training)
        out = x.new_zeros(len(x), HEADS, WIDTH // HEADS)
        out = out.index_add(0, owner, weights.unsqueeze(-1) * value)
        return out.view(-1, WIDTH) + self.skip(x)

    def scores(self, source: Tensor, destination: Tensor) -> Tensor:
        """The link decoder."""
        return self.score((self.source(source) + self.destination(destination)).relu())

    def remember(
        self, sources: Tensor, destinations: Tensor, times: Tensor, events: Tensor, edges: Tensor
    ) -> None:
        """Apply stored messages of the batch's ends, then store the batch's."""
        nodes = torch.cat([sources, destinations]).unique()
        with torch.no_grad():
            memory, updated = self.fresh(nodes, edges)
            self.memory[nodes], self.updated[nodes] = memory, updated
        for store, own, other in (
            (self.stores[0], sources, destinations),
            (self.stores[1], destinations, sources),
        ):
            ids, order = own.sort()
            found, counts = ids.unique_consecutive(return_counts=True)
            for node, part in zip(found.tolist(), order.split(counts.tolist()), strict=True):
                store[node] = own[part], other[part], times[part], events[part]


def epoch(
    sources: Tensor,
    destinations: Tensor,
    times: Tensor,
    edges: Tensor,
    num_nodes: int,
    low: int = 0,
) -> float:
    """Train one epoch; return the mean loss."""
    torch.manual_seed(0)
    model = PlainTgn(num_nodes, edges.shape[1])
    model.train()
    neighbours = LastNeighbours(num_nodes)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    total = 0.0
    for at in range(0, len(times), BATCH):
        optimizer.zero_grad()
        u, v, t = (column[at : at + BATCH] for column in (sources, destinations, times))
        events = torch.arange(at, at + len(t))
        false = torch.randint(low, num_nodes, (len(t),))
        roots = torch.cat([u, v, false]).unique()
        near, found, owner = neighbours.of(roots)
        nodes = torch.cat([roots, near]).unique()
        places = torch.full((num_nodes,), -1)
        places[nodes] = torch.arange(len(nodes))
        x, updated = model.fresh(nodes, edges)
        ends = places[near], places[roots[owner]]
        z = model.embed(x, updated, ends, times[found], edges[found])
        true_score = model.scores(z[places[u]], z[places[v]])
        false_score = model.scores(z[places[u]], z[places[false]])
        loss = functional.softplus(-true_score).mean() + functional.softplus(false_score).mean()
        model.remember(u, v, t, events, edges)
        neighbours.insert(u, v, events)
        loss.backward()
        optimizer.step()
        model.memory.detach_()
        total += float(loss.detach()) * len(t)
    return total / len(times)
