"""Out-of-core training on a real rank: invariants 15, 18, 22, 26 and 29 of its reference.

Volumes and the limit in which all partitions are in the buffer (8-10, 14) are statements of
conformance.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import torch
from out_of_core_cases import learnt, replayed

from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.approaches.out_of_core import evaluating
from gnnbench.approaches.out_of_core.storage import DISK_BLOCK
from gnnbench.data.dense import DenseSampler
from gnnbench.data.sampling import batch_seeds, epoch_seeds
from gnnbench.data.source import Library
from gnnbench.errors import DataError
from gnnbench.spec import TaskSpec
from gnnbench_runtime.approaches.out_of_core.decoders import DECODERS, gradients, score
from gnnbench_runtime.approaches.out_of_core.links import adagrad_rows
from gnnbench_runtime.approaches.out_of_core.ranking import Ranking, metrics_of
from gnnbench_runtime.conformance.device import perform_off_the_host
from gnnbench_runtime.conformance.perform import make_trainer
from gnnbench_runtime.disk import ALIGNMENT, BlockFile
from gnnbench_runtime.held import compare

LINKS: dict[str, Any] = {
    "kind": "triples",
    "model": {"kind": "embedding", "decoder": "complex"},
    "batch": {"size": 64, "negatives": 20},
    "training": {"optimizer": "adagrad", "epochs": 2},
}
BETA = example("out-of-core", 1, knobs={"partitions": 5, "buffer": 2, "policy": "beta"}, **LINKS)
TRIPLES = Library([]).open(BETA.dataset)


def drawn(*shape: int) -> Any:
    return torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))
    )


@pytest.mark.parametrize("name", DECODERS)
def test_gradients_in_closed_form_are_those_of_autograd(name: str) -> None:
    inputs = [drawn(7, 6), drawn(7, 6) + 1, drawn(7, 6) * 2, drawn(5, 6)]
    decoder = DECODERS[name]
    found = gradients(decoder, score(decoder, *inputs))
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    h, r, t, n = leaves
    loss = torch.zeros(1, dtype=torch.float64)
    for query, true in zip(decoder.queries(h, r, t), (t, h), strict=True):
        scores = torch.cat([(query * true).sum(1, keepdim=True), query @ n.T], 1)
        target = torch.zeros(7, dtype=torch.int64)
        loss = loss + torch.nn.functional.cross_entropy(scores, target, reduction="sum")
    loss.backward()
    assert float(score(decoder, *inputs).loss) == pytest.approx(float(loss.detach()), rel=1e-12)
    for own, leaf in zip(found, leaves, strict=True):
        wanted = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        torch.testing.assert_close(own, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", DECODERS)
def test_both_queries_score_the_same_edge(name: str) -> None:
    """<tail query, t> = <head query, h>; ComplEx is the real part of h r conj(t)."""
    h, r, t = drawn(7, 6), drawn(7, 6) + 1, drawn(7, 6) * 2
    tail, head = DECODERS[name].queries(h, r, t)
    torch.testing.assert_close((tail * t).sum(1), (head * h).sum(1))
    if name == "complex":
        a, b, c = (torch.complex(*x.chunk(2, dim=1)) for x in (h, r, t))
        torch.testing.assert_close((tail * t).sum(1), (a * b * c.conj()).sum(1).real)


def test_sparse_adagrad_is_that_of_torch_on_the_touched_rows() -> None:
    """Invariant 18; rows that are not touched keep value and state."""
    values, rows = drawn(9, 4), torch.tensor([7, 2, 3])
    table = torch.cat([values, torch.zeros_like(values)])
    leaf = values.clone().requires_grad_()
    reference = torch.optim.Adagrad([leaf], lr=0.3, eps=1e-10)
    for step in range(3):
        gradient = drawn(3, 4 + 0 * step) * (step + 1)
        adagrad_rows(table, rows, rows + 9, gradient, 0.3)
        leaf.grad = torch.zeros_like(leaf).index_add_(0, rows, gradient)
        reference.step()
    torch.testing.assert_close(table[:9], leaf.detach(), rtol=0, atol=1e-15)
    assert torch.equal(table[[0, 1, 4]], values[[0, 1, 4]])


def brute_force(protocol: str, rows: Any, relations: Any, asked: Any) -> dict[str, float]:
    """Ranks of the test facts, one fact and one corrupted end at a time."""
    t, decoder = TRIPLES, DECODERS["complex"]
    facts = set(zip(t.heads.tolist(), t.relations.tolist(), t.tails.tolist(), strict=True))

    def value(h: int, r: int, o: int) -> float:
        query, _ = decoder.queries(rows[[h]], relations[[r]], rows[[o]])
        return float((query * rows[[o]]).sum())

    found: list[list[int]] = [[], []]
    part = t.part("test")
    for h, r, o in zip(t.heads[part], t.relations[part], t.tails[part], strict=True):
        true = value(h, r, o)
        for side in (0, 1):
            rank = 1
            for other in asked:
                edge = (int(h), int(r), other) if side == 0 else (other, int(r), int(o))
                same = other == (o, h)[side]
                if same or (protocol == "filtered" and edge in facts):
                    continue
                rank += value(*edge) >= true - 1e-12
            found[side].append(rank)
    return metrics_of(np.array(found[0] + found[1]))


@pytest.mark.parametrize("protocol", ["filtered", "unfiltered"])
def test_ranks_are_those_of_brute_force(protocol: str) -> None:
    """Invariant 22, however the table is cut into parts."""
    rows, relations = drawn(TRIPLES.num_entities, 8), drawn(TRIPLES.num_relations, 8)
    ranking = Ranking(TRIPLES, TaskSpec(protocol=protocol, negatives=30), DECODERS["complex"], 5)
    chosen = ranking._asked("test")
    asked = range(TRIPLES.num_entities) if chosen is None else np.flatnonzero(chosen).tolist()
    wanted = brute_force(protocol, rows, relations, asked)
    order = np.random.default_rng(0).permutation(TRIPLES.num_entities)
    for cuts in ([], [10, 11, 40]):
        parts = [(ids, rows[torch.from_numpy(ids)]) for ids in np.split(order, cuts)]
        found = ranking.evaluate(lambda parts=parts: parts, relations)
        assert {k.removeprefix("test_"): v for k, v in found.items() if "test_" in k} == wanted
        assert "val_mrr" in found


def test_the_best_scorer_has_mrr_one_and_ties_count_against() -> None:
    """Invariant 22: 1 for a perfect scorer; 1 / (n + 1) where nothing beats n ties."""
    assert metrics_of(np.ones(4, np.int64)) == {"mrr": 1.0, "hits_1": 1, "hits_3": 1, "hits_10": 1}
    ranking = Ranking(TRIPLES, TaskSpec(protocol="unfiltered", negatives=10**6), DECODERS["dot"], 0)
    zeros = torch.zeros((TRIPLES.num_entities, 2), dtype=torch.float64)
    ids = np.arange(TRIPLES.num_entities)
    found = ranking.evaluate(lambda: [(ids, zeros)], torch.zeros(0))
    assert found["test_mrr"] == pytest.approx(1 / TRIPLES.num_entities)


@pytest.mark.parametrize("policy", [{"policy": "beta"}, {"partitions": 10, "buffer": 4}])
def test_what_the_disk_learns_is_what_its_batches_teach_in_memory(policy: dict) -> None:
    """Invariant 15, to the bit: nothing is lost or doubled between buffer and disk."""
    run = dataclasses.replace(BETA, knobs={**BETA.knobs, **policy})
    found, wanted = replayed(run, TRIPLES)
    assert np.array_equal(found, wanted)
    assert np.abs(found).max() > 0


def test_reading_ahead_changes_nothing_though_the_disk_is_slow(monkeypatch: Any) -> None:
    """Invariant 26: no partition is read while its eviction is still being written."""
    wanted = learnt(BETA, TRIPLES)
    write = BlockFile.write

    def slow(self: BlockFile, source: Any, offset: int) -> int:
        if threading.current_thread().name.startswith("read-ahead"):
            time.sleep(0.02)
        return write(self, source, offset)

    monkeypatch.setattr(BlockFile, "write", slow)
    ahead = dataclasses.replace(BETA, knobs={**BETA.knobs, "read_ahead": 1})
    assert np.array_equal(learnt(ahead, TRIPLES), wanted)


def test_a_failed_read_ahead_ends_training_and_leaves_no_thread(monkeypatch: Any) -> None:
    """Invariant 29."""
    before, read = threading.active_count(), BlockFile.read

    def broken(self: BlockFile, into: Any, offset: int) -> int:
        if threading.current_thread().name.startswith("read-ahead"):
            raise DataError("rows.bin", "cannot be read")
        return read(self, into, offset)

    monkeypatch.setattr(BlockFile, "read", broken)
    ahead = dataclasses.replace(BETA, knobs={**BETA.knobs, "read_ahead": 1})
    with pytest.raises(DataError, match="cannot be read"):
        learnt(ahead, TRIPLES)
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "model", [{"kind": "sage", "norm": "layer", "layers": 3}, {"kind": "gat", "heads": 2}]
)
def test_a_layer_at_a_time_gives_the_logits_of_all_at_once(model: dict, tmp_path: Path) -> None:
    """Few vertices at a time and all of them; conformance holds the latter against `sampled`."""
    run = example("out-of-core", 1, model=model)
    data = Library([]).open(run.dataset)
    trainer, _, _ = make_trainer(0, 1, run, data, tmp_path)
    trainer.train_period(0)
    whole = np.array(trainer.evaluator.logits(tmp_path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluating, "BYTES_AT_ONCE", 600)
        assert len(list(trainer.evaluator._ranges(56))) > 40
        parts = np.array(trainer.evaluator.logits(tmp_path))
    trainer.close()
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)
    assert np.abs(whole).max() > 0


@pytest.mark.parametrize("name", ["belady", "embeddings", "out-of-core"])
def test_a_device_is_given_what_its_plan_copies(name: str) -> None:
    """The steps of a plan for a GPU are those performed on a device that the host cannot read."""
    card = APPROACHES.get(name)
    for run in card.examples():
        training = dataclasses.replace(run.training, epochs=1)
        once = dataclasses.replace(run, training=training)
        data = Library([]).open(run.dataset)
        layout = Layout(world_size=1, ranks_per_host=1, device="cuda")
        plan = card.plan(data, once, card.structure(data, once), layout)
        plan.validate()
        steps, iterations = compare(plan, perform_off_the_host(once, data, 0), 0)
        assert steps == plan.num_steps(0)
        assert iterations == plan.periods[0]


def test_blocks_are_those_of_the_disk() -> None:
    assert DISK_BLOCK == ALIGNMENT


def test_dense_batches_of_a_whole_buffer_are_those_of_the_whole_graph(tmp_path: Path) -> None:
    """Invariant 14 for DENSE: with all partitions resident, samples are drawn as from memory."""
    batch = {"size": 16, "fanouts_from_seeds": (4, 3, 2)}
    run = example("out-of-core", 1, model={"kind": "sage", "layers": 3}, batch=batch)
    data = Library([]).open(run.dataset)
    sampler = DenseSampler(data.indptr, data.indices, (4, 3, 2), run.training.seed)
    order = epoch_seeds(data.train_nodes(), run.training.seed, 0)
    trainer, _, _ = make_trainer(0, 1, run, data, tmp_path)
    for step, found in enumerate(trainer.batches.of_period(0)):
        wanted = sampler.sample(batch_seeds(order, 16, step), 0, step)
        assert found.row_ids[0].tolist() == wanted.input_nodes.tolist()
        rows = torch.from_numpy(np.asarray(data.features)[wanted.input_nodes])
        assert torch.equal(found.x, rows.to(found.x.dtype))
        for pattern, block in zip(found.aggregations, wanted.blocks, strict=True):
            assert pattern.indptr.tolist() == block.indptr.tolist()
            assert pattern.indices.tolist() == block.indices.tolist()
    trainer.close()


def test_gradients_of_a_dense_batch_are_those_of_autograd(tmp_path: Path) -> None:
    """Invariant 16, with respect to the weights: three layers whose lists are heads of one CSR."""
    batch = {"size": 12, "fanouts_from_seeds": (4, 3, 2)}
    run = example("out-of-core", 1, model={"kind": "sage", "layers": 3}, batch=batch)
    data = Library([]).open(run.dataset)
    trainer, _, _ = make_trainer(0, 1, run, data, tmp_path)
    found = next(iter(trainer.batches.of_period(0)))
    trainer.net.gradients(found)
    leaves = {
        name: value.clone().requires_grad_() for name, value in trainer.parameters.value.items()
    }
    rows = found.x.clone()
    for layer, pattern in enumerate(found.aggregations, start=1):
        dense = torch.zeros((pattern.rows, pattern.source_rows), dtype=rows.dtype)
        places = torch.repeat_interleave(torch.arange(pattern.rows), pattern.indptr.diff())
        dense[places, pattern.indices.long()] = pattern.row_scale[places]
        names = ("self_weight", "weight", "bias")
        own, others, bias = (leaves[f"{name}_{layer}"] for name in names)
        rows = rows[: pattern.rows] @ own + (dense @ rows) @ others + bias
        if layer < 3:
            rows = torch.relu(rows)
    loss = torch.nn.functional.cross_entropy(rows, found.labels.long(), reduction="sum")
    (loss * found.scale).backward()
    for name, leaf in leaves.items():
        torch.testing.assert_close(trainer.parameters.grad[name], leaf.grad, rtol=0, atol=1e-12)
    trainer.close()
