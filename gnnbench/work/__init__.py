"""Bytes, flops and facts of every operation, each formula once.

The writer of a plan calls these functions with sizes of the structure, the runtime with sizes of
its tensors; a difference between the two is an error in one of them. Sizes may be integers,
or int64 arrays with one entry per rank (see `gnnbench.steps`).

Conventions: `element_bytes` is 4 (float32) or 8 (float64). Row pointers and vertex ids take 8
bytes, column numbers of a sparse pattern 4. Bytes are those that an operation must at least move:
each input read once, each output written once. Flops count multiplications and additions
separately.
"""

from __future__ import annotations

from gnnbench.work.dense import (
    ID_BYTES,
    activation,
    activation_backward,
    adagrad,
    adagrad_rows,
    adam,
    attention_scores,
    attention_scores_backward,
    bias,
    column_sum,
    cross_entropy,
    dropout,
    elementwise,
    gather,
    gather_host,
    gemm,
    layer_norm,
    layer_norm_backward,
    scatter_add,
    sgd,
)
from gnnbench.work.links import decode, decode_backward, draw_negatives, shuffle
from gnnbench.work.modules import host, launches, module, repeated
from gnnbench.work.moving import (
    all_gather,
    all_reduce,
    all_reduce_bytes,
    all_to_all,
    barrier,
    broadcast,
    read,
    recv,
    reduce_scatter,
    send,
    to_device,
    to_host,
    write,
)
from gnnbench.work.sampling import (
    draw_neighbours,
    draw_once,
    look_up,
    prepare_blocks,
    rank_rows,
    rebuild_graph,
    route,
    sample,
)
from gnnbench.work.sparse import INDEX_BYTES, sddmm_add, sddmm_dot, spmm, spmm_weighted
from gnnbench.work.temporal import (
    binary_cross_entropy,
    ingest,
    link_decoder,
    memory_updater,
    memory_write,
    sample_temporal,
    temporal_attention,
)

__all__ = [
    "ID_BYTES",
    "INDEX_BYTES",
    "activation",
    "activation_backward",
    "adagrad",
    "adagrad_rows",
    "adam",
    "all_gather",
    "all_reduce",
    "all_reduce_bytes",
    "all_to_all",
    "attention_scores",
    "attention_scores_backward",
    "barrier",
    "bias",
    "binary_cross_entropy",
    "broadcast",
    "column_sum",
    "cross_entropy",
    "decode",
    "decode_backward",
    "draw_negatives",
    "draw_neighbours",
    "draw_once",
    "dropout",
    "elementwise",
    "gather",
    "gather_host",
    "gemm",
    "host",
    "ingest",
    "launches",
    "layer_norm",
    "layer_norm_backward",
    "link_decoder",
    "look_up",
    "memory_updater",
    "memory_write",
    "module",
    "prepare_blocks",
    "rank_rows",
    "read",
    "rebuild_graph",
    "recv",
    "reduce_scatter",
    "repeated",
    "route",
    "sample",
    "sample_temporal",
    "scatter_add",
    "sddmm_add",
    "sddmm_dot",
    "send",
    "sgd",
    "shuffle",
    "spmm",
    "spmm_weighted",
    "temporal_attention",
    "to_device",
    "to_host",
    "write",
]
