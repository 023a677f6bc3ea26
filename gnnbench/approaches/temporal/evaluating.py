"""The evaluation of a stream that is a static graph: its events are predicted part by part.

With increments nothing is left to do: metrics are those of the predictions in the periods.
"""

from __future__ import annotations

from collections.abc import Sequence

from gnnbench.approaches.temporal.inputs import sample_bytes
from gnnbench.approaches.temporal.metrics import measured_bytes
from gnnbench.approaches.temporal.structure import StreamStructure
from gnnbench.approaches.writing.evaluating import EvaluationWriter
from gnnbench.iterations import Iteration, LazyIterations
from gnnbench.models.temporal import TemporalShape
from gnnbench.steps import Size

SPLITS = ("val", "test")


def stream_evaluation(
    shape: TemporalShape,
    structure: StreamStructure,
    *,
    held: dict[str, Size],
    cached: tuple[str, ...],
    on_host: bool,
) -> Sequence[Iteration]:
    """The evaluation of a model, made when it is asked for; none with increments.

    Args:
        shape: the model.
        structure: of the run.
        held: bytes of what predicting changes, which is copied before and put back behind.
        cached: kinds of rows that are behind a cache, which an evaluation reads past.
        on_host: whether layers are loops on the host.
    """
    if structure.protocol.increments:
        return ()

    def made(_: int) -> Iteration:
        return _written(shape, structure, held, cached, on_host=on_host)

    return LazyIterations(1, made)


def _written(
    shape: TemporalShape,
    structure: StreamStructure,
    held: dict[str, Size],
    cached: tuple[str, ...],
    *,
    on_host: bool,
) -> Iteration:
    writer, s = EvaluationWriter(structure.protocol.ranks), shape.element_bytes
    sizes = structure.evaluation_sizes(memory=shape.memory)
    queries, distinct = sizes.queries, sizes.distinct
    edges = queries[-1] - queries[0]
    writer.step("begin", held)
    moved = (2 if cached else 1) * s  # past a cache, rows are gathered on the host first
    rows = {
        "nodes_rows": queries[-1] * shape.nodes * moved,
        "edges_rows": edges * shape.edges * moved,
        "memory_rows": distinct * (shape.memory_width + shape.memory * shape.edges) * s,
    }
    writer.step("input", {"sample": sample_bytes(shape, queries, distinct), **rows})
    read: list[str] = []
    if shape.memory:
        kept = shape.updater_kept(distinct, queries[-1]) * s
        made = queries[-1] * shape.width(1) * s
        writer.step("updater", {"kept": kept, "made_0": made}, frees=["kept"])
        read = ["made_0"]
    for layer in range(1, shape.num_layers + 1):
        hop = shape.num_layers - layer
        asked, near = queries[hop], queries[hop + 1] - queries[hop]
        kept = shape.layer_held(layer, asked, near, on_host=on_host) * s
        made = asked * shape.hidden * s
        name = f"made_{layer}"
        writer.step(f"layer_{layer}", {"kept": kept, name: made}, frees=["kept", *read])
        read = [name]
    pairs = _pairs(structure, memory=shape.memory)
    kept = (shape.decoder_kept(pairs) + 3 * pairs) * s
    writer.step("decoder", {"kept": kept}, frees=["kept", *read])
    measure_parts(writer, structure, s, memory=shape.memory)
    return writer.iteration()


def _pairs(structure: StreamStructure, *, memory: bool) -> int:
    """Pairs that a rank scores at a time, at most."""
    pieces = structure.looked_at(memory=memory)
    return max((int(structure.num_pairs(piece).max()) for piece in pieces), default=0)


def measure_parts(
    writer: EvaluationWriter, structure: StreamStructure, element_bytes: int, *, memory: bool
) -> None:
    """Write the scores of a part on the device, and the metrics of a split on the host."""
    ranks, streamed = structure.protocol.ranks, structure.protocol.streamed_batch
    scored, measured = 0, 0
    for split in SPLITS:
        part = structure.stream.part(split)
        events = part.stop - part.start
        pairs = structure.all_pairs(part.start, part.stop) if events else 0
        # Parts are measured together: their scores are there one by one, and as one array.
        measured = max(measured, 8 * pairs + measured_bytes(pairs, events))
        scored = max(scored, -(-pairs // ranks))
    # Of a part, own scores piece by piece, then together and of all ranks.
    own = _pairs(structure, memory=memory) if streamed or memory else scored
    on_device: dict[str, Size] = {"scores": (2 + ranks) * own * element_bytes}
    writer.step("metrics", on_device, on_host={"metrics": measured})
