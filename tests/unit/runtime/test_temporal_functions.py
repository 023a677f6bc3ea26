"""Attention, memory updates and time encodings against their definitions, both directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

import torch
from torch import Tensor

from gnnbench.approaches.temporal.memory import MemoryClock
from gnnbench.models.temporal import TemporalShape
from gnnbench_runtime.models.temporal import TemporalAttention
from gnnbench_runtime.models.temporal_functions import (
    SLOPE,
    attended,
    encoded,
    gathered,
    updated,
)

COUNTS = [3, 0, 1, 2, 0]
"""Neighbours of five queries, of a fan-out of 3."""
FANOUT, HEADS, N, E, D = 3, 2, 4, 2, 6


def drawn(*shape: int, seed: int = 0) -> Tensor:
    made = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=made, dtype=torch.float64).requires_grad_()


def asked(masked: bool) -> dict[str, Any]:
    """Arguments of an attention over six edges."""
    edges = sum(COUNTS)
    places = [FANOUT * r + k for r, count in enumerate(COUNTS) for k in range(count)]
    return {
        "near": drawn(edges, N),
        "edges": drawn(edges, E).detach(),
        "ages": drawn(edges, seed=1).detach().abs(),
        "encoding": (drawn(D), drawn(D, seed=2)),
        "keys": drawn(HEADS, len(COUNTS), N + E + D),
        "biases": drawn(len(COUNTS), HEADS),
        "places": torch.tensor(places),
        "fanout": FANOUT,
        "masks": (drawn(edges, HEADS).detach(),) if masked else (),
    }


def by_definition(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Edge by edge and head by head."""
    time, bias = given["encoding"]
    then = torch.cos(given["ages"].unsqueeze(1) * time + bias)
    x = torch.cat([given["near"], given["edges"], then], 1)
    sums, totals, at = [], [], 0
    for r, count in enumerate(COUNTS):
        own = x[at : at + count]
        for h in range(HEADS):
            scores = own @ given["keys"][h, r] + given["biases"][r, h]
            weights = torch.softmax(torch.nn.functional.leaky_relu(scores, SLOPE), 0)
            if given["masks"]:
                weights = weights * given["masks"][0][at : at + count, h]
            sums.append(weights @ own)
            totals.append(weights.sum())
        at += count
    rows = torch.stack(sums).view(len(COUNTS), HEADS, -1).transpose(0, 1)
    return rows, torch.stack(totals).view(len(COUNTS), HEADS)


def gradients(outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Of a sum with fixed, unlike weights."""
    weighted = sum((out * drawn(*out.shape, seed=5).detach()).sum() for out in outputs)
    return torch.autograd.grad(weighted, inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "dropout"])
def test_attention_is_its_definition_both_ways(masked: bool) -> None:
    """Queries without neighbours get zeros. The host's way is compared with this one below."""
    given = asked(masked)
    inputs = [given["near"], *given["encoding"], given["keys"], given["biases"]]
    expected = by_definition(given)
    wanted = gradients(expected, inputs)
    rest = {name: value for name, value in given.items() if name != "masks"}
    found = attended(**rest, mask=given["masks"][0] if masked else torch.empty(0, HEADS))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    for one, other in zip(gradients(found, inputs), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert not found[0][:, 1].any() and not found[1][4].any()


@pytest.mark.parametrize("counts", [COUNTS, [1, 2, 3]], ids=["some alone", "all with others"])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "dropout"])
def test_a_layer_on_the_host_is_that_on_tables_both_ways(masked: bool, counts: list[int]) -> None:
    """One function against torch's tape; queries without neighbours have their own row only."""
    shape = TemporalShape(
        nodes=N,
        edges=E,
        hidden=D,
        heads=HEADS,
        fanouts=(FANOUT,),
        element_bytes=8,
        negatives=1,
    )
    layer = TemporalAttention(shape, 1).double()
    for number, parameter in enumerate(layer.parameters()):
        parameter.data = drawn(*parameter.shape, seed=number).detach()
    places = torch.tensor([FANOUT * r + k for r, count in enumerate(counts) for k in range(count)])
    queries, edges = len(counts), len(places)
    rows = drawn(queries + edges, N)
    masks = (drawn(queries, D).detach(), drawn(edges, HEADS).detach()) if masked else ()
    given = rows, drawn(edges, E).detach(), drawn(edges, seed=1).detach().abs(), places, masks
    learnt = [p for name, p in layer.named_parameters() if not name.startswith("norm")]
    host, tables = layer._on_host(*given), layer._on_tables(*given)
    torch.testing.assert_close(host, tables, rtol=0, atol=1e-12)
    inputs = [rows, *learnt]
    for one, other in zip(gradients((host,), inputs), gradients((tables,), inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_the_update_is_a_gru_both_ways() -> None:
    """Gates read the sum of both products, and a node without a message keeps its memory."""
    count = 5
    held, edges = drawn(count, 2 * D).detach(), drawn(count, E).detach()
    ages, has = drawn(count).detach().abs(), torch.tensor([1.0, 0, 1, 1, 0], dtype=torch.float64)
    weights = drawn(3 * D + E, 3 * D), drawn(3 * D), drawn(D, 3 * D), drawn(3 * D, seed=1)
    encoding = drawn(D), drawn(D, seed=2)
    memory = held[:, :D]
    then = torch.cos(ages.unsqueeze(1) * encoding[0] + encoding[1])
    given = torch.cat([held, edges, then], 1) @ weights[0] + weights[1]
    kept = memory @ weights[2] + weights[3]
    (r, z, n), (kept_r, kept_z, kept_n) = given.split(D, 1), kept.split(D, 1)
    fresh = torch.tanh(n + torch.sigmoid(r + kept_r) * kept_n)
    expected = memory + has.unsqueeze(1) * (1 - torch.sigmoid(z + kept_z)) * (fresh - memory)
    found = updated(held, edges, ages, has, weights, encoding)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert torch.equal(found[1], memory[1])
    inputs = [*weights, *encoding]
    for one, other in zip(gradients((found,), inputs), gradients((expected,), inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_without_any_message_memory_stays_and_nothing_is_learnt() -> None:
    held, edges = drawn(4, 2 * D).detach(), drawn(4, E).detach()
    ages, has = drawn(4).detach().abs(), torch.zeros(4, dtype=torch.float64)
    weights = drawn(3 * D + E, 3 * D), drawn(3 * D), drawn(D, 3 * D), drawn(3 * D, seed=1)
    found = updated(held, edges, ages, has, weights, (drawn(D), drawn(D, seed=2)))
    assert torch.equal(found, held[:, :D])
    assert not any(gradient.any() for gradient in gradients((found,), list(weights)))


def test_encodings_of_long_ages_keep_their_phase() -> None:
    """Ages up to thirty years in seconds, float32: within 2e-7 of float64; so is the slope."""
    ages = torch.tensor([0.0, 1.0, 3.5, 1e3, 86_400.0, 1e7, 9.46e8])
    time = torch.tensor([1.0, 0.37, 1e-3, 1e-9]).requires_grad_()
    bias = torch.tensor([0.0, 2.0, -1.0, 0.5]).requires_grad_()
    arguments = np.outer(ages.double(), time.detach().double()) + bias.detach().double().numpy()
    found = encoded(ages, time, bias)
    assert np.abs(found.detach().numpy() - np.cos(arguments)).max() < 2e-7
    found.sum().backward()
    assert bias.grad is not None
    assert np.abs(bias.grad.numpy() + np.sin(arguments).sum(0)).max() < 2e-6


def test_gathered_rows_add_their_gradients_up() -> None:
    rows, ids = drawn(4, 3), torch.tensor([2, 0, 2, 2])
    found = gathered(rows, ids)
    assert torch.equal(found, rows[ids])
    torch.testing.assert_close(gradients((found,), [rows]), gradients((rows[ids],), [rows]))


def test_nodes_are_numbered_in_the_order_of_their_coming() -> None:
    clock = MemoryClock(9)
    for nodes in ([5, 2, 5, 8, 2], [2, 2], []):
        distinct, numbers = clock.distinct(np.array(nodes, np.int64))
        assert distinct.tolist() == list(dict.fromkeys(nodes))
        assert distinct[numbers].tolist() == nodes
