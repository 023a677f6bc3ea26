"""Bytes and flops of every operation against numbers worked out by hand; lanes; sizes by rank."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnnbench import work
from gnnbench.steps import SIZES, Engine, Kind, Lane, Work

# float32 unless said otherwise: s = 4. Row pointers and ids take 8 bytes, column numbers 4.
S = 4
SPMM = {"rows": 3, "nonzeros": 5, "width": 2, "source_rows": 4, "element_bytes": S}
HEADS = {**SPMM, "width": 6, "heads": 2}

# What is called, its kind, op, bytes and flops.
ATTENDED: dict[str, Any] = {
    "queries": 2,
    "edges": 3,
    "fanout": 2,
    "width": 4,
    "edge_width": 1,
    "hidden": 5,
    "heads": 1,
    "kept": 6,
    "parameters": 7,
    "element_bytes": S,
}
SENT = np.array([0, 3])
HAND_WORKED: list[tuple[Callable[[], Work], str, str, int, int]] = [
    # Pointers 8 * 4, columns 4 * 5, rows read 4 and written 3, of 2 floats; 2 * 5 * 2 flops.
    (lambda: work.spmm(**SPMM), "spmm", "spmm", 32 + 20 + (4 + 3) * 8, 20),
    # Y is read as well.
    (lambda: work.spmm(**SPMM, adds=True), "spmm", "spmm", 32 + 20 + (4 + 6) * 8, 20),
    # A weight per entry.
    (lambda: work.spmm(**SPMM, edge_weights=True), "spmm", "spmm_edges", 32 + 40 + 7 * 8, 20),
    # Fewer entries than source rows: a row per entry is read, 2 of 4.
    (lambda: work.spmm(**{**SPMM, "nonzeros": 2}), "spmm", "spmm", 32 + 8 + (2 + 3) * 8, 8),
    # Two weights per entry: 5 * 2 * 4 = 40; rows of 6 floats: 24.
    (lambda: work.spmm_weighted(**HEADS), "spmm", "spmm_weighted", 32 + 20 + 40 + 7 * 24, 60),
    (
        lambda: work.spmm_weighted(**HEADS, transpose=True),
        *("spmm", "spmm_weighted_t", 32 + 20 + 40 + 7 * 24, 60),
    ),
    # Scores of 3 rows, 4 sources and 5 entries, 2 heads each; 3 flops per entry and head.
    (
        lambda: work.sddmm_add(rows=3, nonzeros=5, heads=2, source_rows=4, element_bytes=S),
        *("sddmm", "sddmm_add", 32 + 20 + (3 + 4 + 5) * 8, 30),
    ),
    (lambda: work.sddmm_dot(**HEADS), "sddmm", "sddmm_dot", 32 + 20 + 40 + 7 * 24, 60),
    # Values of 5 entries and 2 heads, read by row and by column.
    (lambda: work.edge_sums(5, 2, S), "elementwise", "edge_sums", 80, 10),
    # (3, 2) times (2, 5): 6 + 10 + 15 floats; 2 * 30 flops.
    (lambda: work.gemm("gemm_tn", 3, 2, 5, S), "gemm", "gemm_tn", 31 * 4, 60),
    (lambda: work.gemm("gemm_nn", 3, 2, 5, 8), "gemm", "gemm_nn", 31 * 8, 60),
    # 3 rows of 2 floats are 24 bytes a pass, 6 flops.
    (lambda: work.dropout(3, 2, S), "elementwise", "dropout", 48, 6),
    (lambda: work.activation("relu", 3, 2, S), "elementwise", "relu", 48, 6),
    (
        lambda: work.activation("elu", 3, 2, S, dropped=True),
        *("elementwise", "elu_dropout", 48, 6),
    ),
    (
        lambda: work.activation_backward("relu", 3, 2, S),
        *("elementwise", "relu_backward", 72, 6),
    ),
    (lambda: work.bias(3, 2, S), "elementwise", "bias", 48, 6),
    (lambda: work.column_sum(3, 2, S), "elementwise", "column_sum", 24, 6),
    (lambda: work.layer_norm(3, 2, S), "elementwise", "layer_norm", 72, 48),
    (
        lambda: work.layer_norm_backward(3, 2, S),
        *("elementwise", "layer_norm_backward", 120, 84),
    ),
    # 5 rows of 2 classes written, 3 training rows read twice; 5 flops a training row and class.
    (
        lambda: work.cross_entropy(5, 2, 3, S),
        *("elementwise", "softmax_cross_entropy", (5 + 6) * 8, 30),
    ),
    # 7 rows of 6 floats in, 2 scores out; a product and a sum per float.
    (
        lambda: work.attention_scores(7, 6, 2, S),
        *("elementwise", "attention_scores", 7 * 8 * 4, 84),
    ),
    (
        lambda: work.attention_scores_backward(7, 6, 2, S),
        *("elementwise", "attention_scores_backward", 7 * 20 * 4, 168),
    ),
    (lambda: work.adam(10, S), "optimizer", "adam", 280, 120),
    (lambda: work.sgd(10, S), "optimizer", "sgd", 120, 20),
    (lambda: work.adagrad(10, S), "optimizer", "adagrad", 200, 60),
    # 3 ids, and five passes over 3 rows of 2 floats.
    (lambda: work.adagrad_rows(3, 2, 100, S), "optimizer", "adagrad_rows", 24 + 120, 36),
    (lambda: work.gather(3, 2, 100, S), "gather", "gather", 24 + 48, 0),
    (lambda: work.gather_host(3, 2, 100, S), "gather", "gather_host", 24 + 48, 0),
    (lambda: work.gather(3, 2, 100, S, ids=False), "gather", "gather", 48, 0),
    # 6 elements, read and written.
    (lambda: work.copy_blocks(6, 3, S), "elementwise", "copy_blocks", 48, 0),
    (lambda: work.scatter_add(3, 2, 100, S), "scatter", "scatter_add", 24 + 48, 0),
    (lambda: work.sample(seeds=2, edges=6, vertices=7, read=99), "sample", "sample", 99, 0),
    # 9 + 4 + 2 vertices, 6 + 3 edges: 8 bytes an edge, 16 a vertex.
    (lambda: work.draw_neighbours([9, 4, 2], [6, 3]), "sample", "sample", 72 + 240, 0),
    # Seven ids of edges, ids and table entries of 9 vertices, and 4 of them again as destinations.
    (lambda: work.draw_once(9, 4, 7), "sample", "sample", 56 + 208, 0),
    (lambda: work.prepare_blocks([9, 4, 2], 3), "sample", "prepare_blocks", 24 + 240, 0),
    (
        lambda: work.prepare_blocks([2], 0, "prepare_attention"),
        "sample",
        "prepare_attention",
        32,
        0,
    ),
    # 3 rows and 5 edges of 8 bytes, 4 found vertices of 16; 7 listed of 24.
    (lambda: work.scan_neighbours(3, 5, 4), "sample", "scan_neighbours", 24 + 40 + 64, 0),
    (lambda: work.pick_layer(7), "sample", "pick_layer", 168, 0),
    # 3 rows of 4 + 8 bytes, 7 sources of 16, 5 edges of 8.
    (lambda: work.merge_blocks(3, 7, 5), "sample", "merge_blocks", 36 + 112 + 40, 0),
    # The same for 9 vertices, of which 4 + 2 are destinations, and 6 + 3 edges.
    (
        lambda: work.pack_blocks([9, 4, 2], [6, 3]),
        *("sample", "merge_blocks", 6 * 12 + 9 * 16 + 9 * 8, 0),
    ),
    (lambda: work.route(3), "sample", "route", 72, 0),
    # An id and a slot of 3 rows; id, rank and order of 3 candidates.
    (lambda: work.look_up(3), "sample", "look_up", 48, 0),
    (lambda: work.rank_rows(3, 2), "sample", "rank_rows", 72, 0),
    (lambda: work.rank_rows(3, 2, "lru"), "sample", "rank_rows_lru", 120, 0),
    # Two sorts of 8 passes that read and write 16 bytes a pair.
    (lambda: work.rebuild_graph(3), "elementwise", "rebuild_graph", 2 * 8 * 2 * 16 * 3, 0),
    # Three edges of 84 bytes, five vertices of 96.
    (lambda: work.enter_buffer(5, 3), "elementwise", "enter_buffer", 252 + 480, 0),
    # 56 edges are eight runs, merged in three passes: 112 + 2 x (80 + 96) each; five vertices of
    # 2 x (56 + 24).
    (lambda: work.sort_edges(5, 56), "elementwise", "sort_edges", 56 * 464 + 5 * 160, 0),
    (lambda: work.sort_edges(5, 0), "elementwise", "sort_edges", 5 * 112, 0),
    (lambda: work.module("mlp_forward", flops=9, bytes=8, rows=2), "module", "mlp_forward", 8, 9),
    # Three of the biases above.
    (lambda: work.repeated(work.bias(3, 2, S), 3), "elementwise", "bias", 144, 18),
    (lambda: work.launches(12), "elementwise", "eager", 0, 0),
    (lambda: work.host("bookkeep", rows=3, bytes=5), "host", "bookkeep", 5, 0),
    (lambda: work.to_host(7), "copy", "copy_d2h", 7, 0),
    (lambda: work.to_device(7), "copy", "copy_h2d", 7, 0),
    (lambda: work.read(4096, 2), "read", "read", 4096, 0),
    (lambda: work.write(4096), "write", "write", 4096, 0),
    # Ring over 4 ranks: 2 * 3 / 4 of 40 bytes.
    (lambda: work.all_reduce(10, S, 4), "all_reduce", "all_reduce", 60, 0),
    (
        lambda: work.all_to_all(np.array([0, 2, 3]), 9, 8),
        *("all_to_all", "all_to_all", 40, 0),
    ),
    (
        lambda: work.broadcast(10, S, 4, root=1, is_root=True),
        *("broadcast", "broadcast", 120, 0),
    ),
    (lambda: work.broadcast(10, S, 4, root=1, is_root=False), "broadcast", "broadcast", 0, 0),
    (lambda: work.all_gather(10, S, 4), "all_gather", "all_gather", 120, 0),
    (lambda: work.reduce_scatter(10, S, 4), "reduce_scatter", "reduce_scatter", 120, 0),
    (lambda: work.send(10, S), "send", "send", 40, 0),
    (lambda: work.recv(10, S), "recv", "recv", 0, 0),
    (work.barrier, "barrier", "barrier", 0, 0),
    # Two sides: 2 * 2 * 3 * 2 * 4 for corrupted ends, 8 * 3 * 4, 10 * 3 * 2; rows 5 * 3 + 2 of 4.
    (lambda: work.decode("dot", 3, 2, 4, 8), "module", "dot_forward", (17 * 4 + 12) * 8, 252),
    # Rows 8 * 3 + 2 * 2, and the 5 distinct ones.
    (
        lambda: work.decode_backward("dot", 3, 2, 4, 5, 8),
        *("module", "dot_backward", (33 * 4 + 12) * 8, 384),
    ),
    # Three passes over 2 * 3 + 2 ids.
    (lambda: work.draw_negatives(3, 2, 5), "sample", "draw_negatives", 3 * 8 * 8, 0),
    # A hash of three ids, eight passes over key and place both ways, a copy of three numbers.
    (lambda: work.shuffle(5, 3), "elementwise", "shuffle", 5 * (24 + 8 * 2 * 16 + 24), 0),
    # Streams: an edge of 20 bytes both ways; 3 + 7 queries of 16 bytes and 12 - 3 edges.
    (lambda: work.ingest(5), "host", "ingest", 200, 0),
    # 10 stored edges of 20 bytes, 4 row pointers of 8 bytes.
    (lambda: work.build_temporal_csr(5, 3), "host", "build_temporal_csr", 232, 0),
    (lambda: work.sample_temporal([3, 7, 12]), "sample", "sample_temporal", 340, 0),
    # Products 80 + 400 + 180, times 45, scores and sums 120 + 15, the rest 90; 29 + 6 + 7 elements.
    (
        lambda: work.temporal_attention(**ATTENDED),
        *("module", "temporal_attention_forward", 168, 930),
    ),
    (
        lambda: work.temporal_attention(**ATTENDED, backward=True),
        *("module", "temporal_attention_backward", 336, 1860),
    ),
    # 6 * 2 * 4 * 5, 2 * 2 * 25 and 15 * 2 * 5; 8 + 3 + 6 + 7 elements.
    (
        lambda: work.memory_updater(
            distinct=2, rows=3, message=4, hidden=5, kept=6, parameters=7, element_bytes=S
        ),
        *("module", "memory_updater_forward", 96, 490),
    ),
    # 6 * 2 * 25 more for the time encodings.
    (
        lambda: work.memory_updater(
            distinct=2,
            rows=3,
            message=4,
            hidden=5,
            kept=6,
            parameters=7,
            element_bytes=S,
            backward=True,
        ),
        *("module", "memory_updater_backward", 192, 790),
    ),
    (lambda: work.memory_write(3, 2, 9, S), "scatter", "memory_write", 3 * (16 + 16), 0),
    # 2 * 4 * 9 and 4 * 2 * 3; 12 + 2 + 5 + 6 elements.
    (
        lambda: work.link_decoder(
            roots=4, pairs=2, hidden=3, kept=5, parameters=6, element_bytes=S
        ),
        *("module", "link_decoder_forward", 100, 96),
    ),
    # Sums 20, products 180, bias and ReLU 30; 8 + 18 + 6 + 7 elements.
    (lambda: work.temporal_mean(**ATTENDED), "module", "temporal_mean_forward", 156, 230),
    # Products 80 + 150, scores 60 + 20, sums 40, the rest 40.
    (lambda: work.temporal_gat(**ATTENDED), "module", "temporal_gat_forward", 156, 390),
    # Tokens 45 + 180, two blocks of 1,360 for both queries, means 36, output 180.
    (lambda: work.temporal_mixer(**ATTENDED), "module", "temporal_mixer_forward", 168, 5881),
    # Queries of 16 bytes, places of 20 bytes.
    (lambda: work.serve_temporal(3, 2), "sample", "serve_temporal", 3 * (16 + 40), 0),
    (lambda: work.place_temporal(3, 4), "sample", "place_temporal", 24 + 80, 0),
    (lambda: work.temporal_queries(SENT, 2), "all_to_all", "all_to_all", 48, 0),
    (lambda: work.temporal_replies(SENT, 2, 2), "all_to_all", "all_to_all", 120, 0),
    # Id and slot of 5 requests and 2 moved rows.
    (lambda: work.cache_lookup(5, 2), "host", "cache_lookup", 112, 0),
    # Entries of 16 bytes, read and written; looked up, and a score each.
    (lambda: work.edgebank_insert(3), "host", "edgebank_insert", 96, 0),
    (lambda: work.edgebank_score(3, S), "host", "edgebank_score", 60, 0),
    (lambda: work.binary_cross_entropy(3, S), "elementwise", "binary_cross_entropy", 24, 24),
]


@pytest.mark.parametrize(("make", "kind", "op", "size", "flops"), HAND_WORKED)
def test_bytes_and_flops_are_those_worked_out_by_hand(
    make: Callable[[], Work], kind: str, op: str, size: int, flops: int
) -> None:
    done = make()
    assert (done.kind, done.op, done.bytes, done.flops) == (kind, op, size, flops)


def test_every_operation_is_worked_out() -> None:
    public = {name for name, _ in inspect.getmembers(work, inspect.isfunction)}
    called = {name for make, *_ in HAND_WORKED for name in make.__code__.co_names}
    called |= {work.barrier.__name__}
    # `elementwise` is what the element-wise ones are made of; ring and messages have tests.
    tested = {"all_reduce_bytes", "graph_tables", "header_numbers", "message_bytes"}
    assert public - called == {"elementwise", *tested}


def test_the_tables_of_a_sampler_are_pointers_columns_and_numbers() -> None:
    """Three vertices: 4 pointers of 8 bytes, 5 columns of 4, 3 local numbers of 4."""
    assert work.graph_tables(3, 5) == 32 + 20 + 12


@pytest.mark.parametrize(
    ("made", "facts"),
    [
        (work.spmm(**SPMM), {"rows": 3, "nonzeros": 5, "width": 2, "source_rows": 4}),
        (work.gemm("gemm_nn", 3, 2, 5, S), {"rows": 3, "inner": 2, "width": 5}),
        (work.spmm_weighted(**HEADS), {"inner": 2, "width": 6}),
        (work.bias(3, 2, S), {"rows": 6, "width": 2}),
        (work.draw_neighbours([9, 4, 2], [6, 3]), {"rows": 6, "nonzeros": 9, "source_rows": 9}),
        # Five edges looked at and two drawn by lot; where nothing is said, all nine are.
        (
            work.draw_neighbours([9, 4, 2], [6, 3], 5, by_lot=2, tables=99),
            {"inner": 7, "width": 99},
        ),
        (work.draw_neighbours([9, 4, 2], [6, 3]), {"inner": 9, "width": 0}),
        (work.read(4096, 2), {"rows": 2}),
        (work.launches(12), {"calls": 12}),
        (work.all_reduce(10, S, 4), {"rows": 10, "buffer_bytes": 40}),
        # Of 5 units out and 9 in, the larger buffer is that of the rows that come.
        (work.all_to_all(np.array([0, 2, 3]), 9, 8, width=2), {"rows": 10, "buffer_bytes": 72}),
        (work.all_gather(10, S, 4), {"rows": 10, "buffer_bytes": 160}),
    ],
)
def test_the_facts_of_cost_models_are_in_elements(made: Work, facts: dict[str, int]) -> None:
    assert {name: getattr(made, name) for name in facts} == facts


def test_what_is_sent_to_each_rank_is_units_times_their_size() -> None:
    done = work.all_to_all(np.array([0, 2, 3]), 9, 8)
    assert done.send_bytes is not None
    assert done.send_bytes.tolist() == [0, 16, 24]
    assert work.barrier().send_bytes is None


@given(
    rows=st.lists(st.integers(0, 1000), min_size=1, max_size=4),
    nonzeros=st.integers(0, 5000),
    width=st.integers(1, 300),
)
def test_a_class_of_ranks_has_the_sizes_of_each_of_its_ranks(
    rows: list[int], nonzeros: int, width: int
) -> None:
    def made(n: Any) -> list[Work]:
        sizes = {"nonzeros": nonzeros, "width": width, "source_rows": 2 * n}
        return [
            work.spmm(rows=n, **sizes, element_bytes=S),
            work.cross_entropy(n, 3, n, S),
            work.gather(n, width, 7, S),
            work.all_reduce(n, S, 4),
            work.broadcast(n, S, 4, root=0, is_root=np.ones(len(rows), bool)),
        ]

    for number, together in enumerate(made(np.array(rows))):
        for place, n in enumerate(rows):
            alone = made(n)[number]
            for size in SIZES:
                value = np.broadcast_to(getattr(together, size), len(rows))[place]
                assert value == np.broadcast_to(getattr(alone, size), len(rows))[place]


@given(buffer=st.integers(0, 10**12), world=st.integers(1, 4096))
def test_a_ring_all_reduce_sends_less_than_twice_the_buffer(buffer: int, world: int) -> None:
    sent = work.all_reduce_bytes(buffer, world)
    assert sent * world <= 2 * (world - 1) * buffer < (sent + 1) * world
    assert sent <= 2 * buffer


@pytest.mark.parametrize(
    ("size", "world", "sent"), [(1 << 40, 1, 0), (100, 2, 100), (10, 3, 13)]
)  # 2 * 2 * 10 / 3, rounded down
def test_a_ring_of_few_ranks(size: int, world: int, sent: int) -> None:
    assert work.all_reduce_bytes(size, world) == sent


# Lanes


def test_lanes_of_one_engine_have_numbers_and_equal_ones_are_one_object() -> None:
    reader = Lane("disk", 2)
    assert (str(reader), reader.value, reader.engine) == ("disk:2", "disk:2", Engine.DISK)
    assert reader is Lane.parse("disk:2") is Lane.DISK.at(2)
    assert Lane.parse("disk") is Lane.DISK is not reader
    assert copy.deepcopy(reader) is reader is copy.copy(reader)
    assert {lane.value for lane in map(Lane, Engine)} == {engine.value for engine in Engine}


@pytest.mark.parametrize("text", ["dsk", "disk:x"])
def test_a_lane_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        Lane.parse(text)


def test_every_kind_of_work_is_made_by_some_function() -> None:
    assert {kind for _, kind, *_ in HAND_WORKED} == {kind.value for kind in Kind}
