"""Work of a temporal model's modules, from sizes of the plan or of the tensors at hand."""

from __future__ import annotations

from gnnbench import work
from gnnbench.models.temporal import TemporalShape
from gnnbench.steps import Size, Work

_LAYERS = {
    "attention": work.temporal_attention,
    "mean": work.temporal_mean,
    "gat": work.temporal_gat,
    "mixer": work.temporal_mixer,
}


def layer_work(
    shape: TemporalShape, layer: int, queries: Size, edges: Size, *, backward: bool
) -> Work:
    """Work of a layer."""
    return _LAYERS[shape.layer](
        queries=queries,
        edges=edges,
        fanout=shape.fanouts[layer - 1],
        width=shape.width(layer),
        edge_width=shape.edges,
        hidden=shape.hidden,
        heads=shape.heads,
        kept=shape.layer_kept(layer, queries, edges),
        parameters=shape.layer_parameters(layer),
        element_bytes=shape.element_bytes,
        backward=backward,
    )


def decoder_work(shape: TemporalShape, roots: Size, pairs: Size, *, backward: bool) -> Work:
    """Work of the decoder."""
    return work.link_decoder(
        roots=roots,
        pairs=pairs,
        hidden=shape.hidden,
        kept=shape.decoder_kept(pairs),
        parameters=shape.decoder_parameters,
        element_bytes=shape.element_bytes,
        backward=backward,
    )


def updater_work(shape: TemporalShape, distinct: Size, rows: Size, *, backward: bool) -> Work:
    """Work of the memory's updater."""
    return work.memory_updater(
        distinct=distinct,
        rows=rows * shape.width(1),
        message=shape.message,
        hidden=shape.hidden,
        kept=shape.updater_kept(distinct, rows),
        parameters=shape.updater_parameters,
        element_bytes=shape.element_bytes,
        backward=backward,
    )
