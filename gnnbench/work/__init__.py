"""Bytes, flops and facts of every operation, each formula once.

The writer of a plan calls these functions with the sizes of the structure, the runtime with the
sizes of the tensors that it holds, so that comparing the two says something. Sizes may be integers,
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
    gemm,
    layer_norm,
    layer_norm_backward,
    scatter_add,
    sgd,
)
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
from gnnbench.work.sampling import draw_blocks, prepare_blocks, rebuild_graph, route, sample
from gnnbench.work.sparse import INDEX_BYTES, sddmm_add, sddmm_dot, spmm, spmm_weighted

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
    "broadcast",
    "column_sum",
    "cross_entropy",
    "draw_blocks",
    "dropout",
    "elementwise",
    "gather",
    "gemm",
    "host",
    "launches",
    "layer_norm",
    "layer_norm_backward",
    "module",
    "prepare_blocks",
    "read",
    "rebuild_graph",
    "recv",
    "reduce_scatter",
    "repeated",
    "route",
    "sample",
    "scatter_add",
    "sddmm_add",
    "sddmm_dot",
    "send",
    "sgd",
    "spmm",
    "spmm_weighted",
    "to_device",
    "to_host",
    "write",
]
