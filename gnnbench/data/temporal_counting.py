"""Sizes of temporal samples, without the samples: for plans of many batches at once.

One compiled loop draws what `TemporalSampler` would draw for each batch, on a temporal CSR, and
keeps counts only: queries of every hop, distinct vertices, and the owners of the queries. It needs
no arrays per batch, so planning an epoch costs a small part of training it.

Source: temporal reference section 5; the picks are those of `temporal_picks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnnbench.data.draws import compiled
from gnnbench.data.temporal_csr import TemporalCsr, seen
from gnnbench.data.temporal_picks import NO_LIMIT, take

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """Roots of G batches: events with their candidates.

    Args:
        events: ids, batch by batch, int64 [n].
        batches: where each batch begins and ends, int64 [G + 1].
        indptr: where the candidates of each event begin and end, int64 [n + 1].
        candidates: vertices, int64.
        keys: of the draws of each hop, uint64 [L].
        since, known: see `TemporalStore.draw`; equal for all batches.
    """

    events: Ids
    batches: Ids
    indptr: Ids
    candidates: Ids
    keys: NDArray[np.uint64]
    since: int
    known: int


def count_samples(
    graph: TemporalCsr,
    ends: tuple[NDArray[Any], NDArray[Any], Ids],
    asked: Asked,
    fanouts: Sequence[int],
    *,
    uniform: bool,
    window: int,
    owner: NDArray[np.int32],
    ranks: int,
) -> Ids:
    """Count each batch; int64 [G, L + 2 + L * ranks].

    The columns are R_0 ... R_L, the distinct vertices among the last, and for each hop its queries
    by the owner of their vertex.

    Args:
        graph: knows the whole stream.
        ends: sources, destinations, times of the stream.
        owner: int32 [V], or empty: then the last columns are zero.
        ranks: owners there are.
    """
    hops = len(fanouts)
    out = np.zeros((len(asked.batches) - 1, hops + 2 + hops * ranks), np.int64)
    roots = 2 * np.diff(asked.batches) + np.diff(asked.indptr[asked.batches])
    most = int(roots.max(initial=0))
    for fanout in fanouts:
        most *= 1 + fanout
    _count(
        graph.rows,
        *(np.asarray(end) for end in ends),
        asked.events,
        asked.batches,
        asked.indptr,
        asked.candidates,
        asked.keys,
        asked.since,
        NO_LIMIT if asked.known < 0 else asked.known,
        np.array(fanouts, np.int64),
        uniform,
        window,
        owner,
        ranks,
        np.empty(most, np.int64),
        np.empty(most, np.int64),
        np.full(graph.num_nodes, -1, np.int64),
        out,
    )
    return out


@compiled
def _count(
    rows: Any,
    sources: Any,
    destinations: Any,
    times: Any,
    events: Any,
    batches: Any,
    indptr: Any,
    candidates: Any,
    keys: Any,
    since: int,
    limit: int,
    fanouts: Any,
    uniform: bool,
    window: int,
    owner: Any,
    ranks: int,
    nodes: Any,
    when: Any,
    stamps: Any,
    out: Any,
) -> None:
    hops = len(fanouts)
    picked = np.empty(fanouts.max(), np.int64)
    for g in range(len(batches) - 1):
        count = 0
        for i in range(batches[g], batches[g + 1]):
            e = events[i]
            nodes[count], nodes[count + 1] = sources[e], destinations[e]
            when[count] = when[count + 1] = times[e]
            count += 2
            for k in range(indptr[i], indptr[i + 1]):
                nodes[count], when[count] = candidates[k], times[e]
                count += 1
        out[g, 0] = count
        for hop in range(hops):
            asking = count
            for q in range(asking):
                node, time = nodes[q], when[q]
                if len(owner):
                    out[g, hops + 2 + hop * ranks + owner[node]] += 1
                low, high = seen(node, time, window, since, limit, rows)
                picks = min(high - low, fanouts[hop])
                take(node, time, low, high, picks, keys[hop], uniform, picked, 0)
                for slot in range(picks):
                    nodes[count] = rows.neighbours[picked[slot]]
                    when[count] = rows.times[picked[slot]]
                    count += 1
            out[g, hop + 1] = count
        distinct = 0
        for q in range(count):
            if stamps[nodes[q]] != g:
                stamps[nodes[q]] = g
                distinct += 1
        out[g, hops + 1] = distinct
