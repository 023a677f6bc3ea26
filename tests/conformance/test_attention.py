"""GAT: equal to dense autograd, on any partition, and on sampled blocks (FG-1..8, SA-P7, SA-S1)."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the runtime extra")

import cases  # noqa: E402
from test_exactness import assignments, check_equal, random_graph  # noqa: E402
from test_worlds import performed, planned  # noqa: E402

from gnnbench.approaches.base import Layout  # noqa: E402
from gnnbench.approaches.names import APPROACHES  # noqa: E402
from gnnbench.approaches.whole_graph.partition import PartitionStructure  # noqa: E402
from gnnbench.approaches.writing.shape import stack_shape  # noqa: E402
from gnnbench.data.graph import Graph  # noqa: E402
from gnnbench.models import names  # noqa: E402
from gnnbench.spec import RunSpec  # noqa: E402
from gnnbench.steps import Kind  # noqa: E402
from gnnbench_runtime.conformance.pool import Pools  # noqa: E402

pytestmark = pytest.mark.distributed
FOUR = pytest.param(4, marks=pytest.mark.deep)

MODELS = [
    {"kind": "gat", "hidden": 6, "layers": 2, "heads": 3},
    {"kind": "gat", "hidden": 8, "layers": 3, "heads": 2, "dropout": 0.5, "input_dropout": 0.3},
]


def dense_attention(graph: Graph, run: RunSpec) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, logits and flat gradient by autograd on (N, N, heads) scores."""
    from gnnbench_runtime.models.parameters import Parameters

    n, model = graph.num_nodes, names.MODELS.get("gat")
    neighbours = torch.eye(n, dtype=torch.float64)  # how often j is an entry of row i
    for v in range(n):
        for u in graph.indices[graph.indptr[v] : graph.indptr[v + 1]]:
            neighbours[v, u] += 1.0
    dims = model.dims(run.model, graph.num_features, graph.num_classes)
    heads = model.heads(run.model)
    held = Parameters(
        model.parameters(dims, heads), run.training.seed, torch.device("cpu"), torch.float64
    )
    values = {k: v.clone().requires_grad_() for k, v in held.value.items()}
    h = torch.from_numpy(np.asarray(graph.features)).double()
    for layer in range(1, len(dims)):
        k = heads[layer - 1]
        t = (h @ values[f"weight_{layer}"]).view(n, k, -1)
        to = (t * values[f"attention_destination_{layer}"]).sum(2)
        source = (t * values[f"attention_source_{layer}"]).sum(2)
        score = torch.nn.functional.leaky_relu(to[:, None] + source[None, :], 0.2)
        weight = torch.softmax(score + neighbours.log()[:, :, None], 1)
        y = torch.einsum("ijk,jkd->ikd", weight, t).reshape(n, -1) + values[f"bias_{layer}"]
        h = torch.nn.functional.elu(y) if layer < len(dims) - 1 else y
    train = torch.from_numpy(graph.train_nodes())
    labels = torch.from_numpy(np.asarray(graph.labels)).long()
    loss = torch.nn.functional.cross_entropy(h[train], labels[train])
    loss.backward()
    flat = torch.cat([values[name].grad.reshape(-1) for name in held.value])
    return float(loss.detach()), h.detach().numpy(), flat.numpy()


@pytest.mark.parametrize("undirected", [True, False])
@pytest.mark.parametrize(("heads", "hidden", "layers"), [(1, 5, 3), (3, 6, 2), (2, 8, 1)])
def test_attention_equals_dense_autograd(
    undirected: bool, heads: int, hidden: int, layers: int
) -> None:
    """FG-1, FG-2, FG-6: softmax over in-neighbours and the vertex itself, directed graphs too."""
    graph = random_graph(undirected=undirected)
    model = {"kind": "gat", "hidden": hidden, "layers": layers, "heads": heads}
    run = cases.make_run("single", 1, model, {})
    got = cases.train_full(0, 1, graph, run)
    loss, logits, gradient = dense_attention(graph, run)
    assert abs(got["loss"] - loss) <= 1e-10
    np.testing.assert_allclose(got["logits"], logits, rtol=0, atol=1e-10)
    np.testing.assert_allclose(got["gradient"], gradient, rtol=1e-9, atol=1e-11)


def test_the_gradient_with_dropout_is_that_of_the_loss() -> None:
    """Masks are keyed, so the loss under them is a function: compare with its differences."""
    graph = random_graph(undirected=False)
    run = cases.make_run("single", 1, MODELS[1], {})
    trainer, _, _ = cases.make_trainer(0, 1, run, graph)
    trainer.net.gradients(next(iter(trainer.batches.of_period(0))))
    gradient, flat = trainer.parameters.gradient.clone(), trainer.parameters.flat
    for place in range(0, len(flat), 7):
        kept, losses = float(flat[place]), []
        for change in (1e-6, -1e-6):
            flat[place] = kept + change
            trainer.net.gradients(next(iter(trainer.batches.of_period(0))))
            losses.append(float(trainer.parameters.loss))
        flat[place] = kept
        difference = (losses[0] - losses[1]) / 2e-6
        assert abs(difference - float(gradient[place])) <= 1e-6, place


@pytest.mark.parametrize("world_size", [1, 2, 3, FOUR])
def test_partitioned_attention_equals_single_and_performs_its_plan(
    world_size: int, pools: Pools
) -> None:
    """FG-1..5, FG-9, FG-12, FG-14: any partition, dropped attention weights included."""
    ranks = pools.of(world_size) if world_size > 1 else None
    approach = APPROACHES.get("partition")
    layout = Layout(world_size=world_size, ranks_per_host=world_size)
    for undirected in (True, False):
        graph = random_graph(undirected=undirected)
        for model in MODELS:
            single = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}))
            run = cases.make_run("partition", world_size, model, {})
            shape = stack_shape(graph, run, "min_width")
            assert shape.forward_widths() == shape.backward_widths() == sum(shape.dims[1:])
            for name, assignment in assignments(graph, world_size).items():
                if ranks is None:
                    results = [cases.train_full(0, 1, graph, run, assignment)]
                else:
                    results = ranks.run("cases:train_full", graph, run, assignment)
                check_equal(results, single, f"{name}, undirected={undirected}")
                structure = PartitionStructure.of_assignment(graph, assignment, world_size)
                plan = approach.plan(graph, run, structure, layout)
                plan.validate()
                for rank, got in enumerate(results):
                    assert performed(got["ledger"], 0, 0) == planned(plan, 0, 0, rank), name
                copies = int(structure.sizes.received.sum())
                moved = sum(b for (k, _), b in plan.moved_bytes().items() if k == Kind.ALL_TO_ALL)
                assert moved == 8 * copies * 2 * sum(shape.dims[1:])


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("placement", ["replicated", "partitioned"])
def test_sampled_attention_performs_its_plan(world_size: int, placement: str, pools: Pools) -> None:
    """SA-P7, SA-P1: steps as planned, and the same training on every number of ranks."""
    graph, approach = random_graph(), APPROACHES.get("sampled")
    for model in MODELS:
        knobs = {"placement": placement, "partitioner": "hash"}
        batch = {"size": 5, "fanouts_from_seeds": [2, -1, 3][: model["layers"]]}
        run = cases.make_run("sampled", world_size, model, knobs, batch=batch)
        single = cases.make_run("sampled", 1, model, knobs, batch=batch)
        one = cases.train_sampled(0, 1, graph, single)
        structure = approach.structure(graph, run)
        layout = Layout(world_size=world_size, ranks_per_host=world_size)
        plan = approach.plan(graph, run, structure, layout)
        plan.validate()
        results = [one]
        if world_size > 1:
            ranks = pools.of(world_size)
            results = ranks.run("cases:train_sampled", graph, run)
        for rank, got in enumerate(results):
            np.testing.assert_allclose(got["losses"], one["losses"], rtol=1e-9)
            np.testing.assert_allclose(got["parameters"], one["parameters"], atol=1e-8)
            assert got["metrics"] == one["metrics"]
            for epoch in range(2):
                for iteration in range(structure.num_steps):
                    want = planned(plan, epoch, iteration, rank)
                    assert performed(got["ledger"], epoch, iteration) == want


def test_all_neighbours_and_one_batch_is_the_full_graph() -> None:
    """SA-S1 for attention; without dropout of weights, since fewer rows are asked for."""
    graph, model = random_graph(undirected=False), MODELS[0]
    batch = {"size": graph.num_nodes, "fanouts_from_seeds": [-1, -1]}
    sampled = cases.train_sampled(
        0, 1, graph, cases.make_run("sampled", 1, model, {}, batch=batch), 5
    )
    full = cases.train_full(0, 1, graph, cases.make_run("single", 1, model, {}), None, 5)
    np.testing.assert_allclose(sampled["parameters"], full["parameters"], atol=1e-8)
