"""How released partition-parallel code differs from our plans, written into the plan itself.

The code of PipeGCN and BNS-GCN (fullgraph sections 5-7, 16) moves rows through pinned host memory
and gloo, reduces one tensor per message, exchanges the *input* of an attention layer and averages
its heads, normalises every hidden layer, and issues every operation eagerly. These are properties
of the software, the same for every row; none is chosen by row. What gloo and staging cost is said
by the cluster (transport `gloo_staged`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gnnbench.approaches.writing.stack import StackShape
from gnnbench.cluster import Cluster, Constant
from gnnbench.plan import After, Kind, Lane, Phase, Plan, RankSteps, Step, all_reduce_bytes

NORM_PASSES = {Phase.FORWARD: 3, Phase.BACKWARD: 5}
"""Reads and writes of a row by LayerNorm: statistics, then scale; twice that and sums backward."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """Ways of a published system.

    released     the released partition-parallel code; otherwise the plan stays as it is
    precompute   the first aggregation or, with attention, the first layer's halo, is made once
    layer_norm   hidden layers are normalised
    rebuilds     the graph is made anew in every epoch, also on one rank: 64-bit pairs are sorted
                 by destination and by source
    batched      mini-batches in DGL's layers: heads averaged and operations issued eagerly, as in
                 the released code, but gradients in one bucket over the devices' own links, and
                 graph and features in pinned host memory, read by the device (UVA)
    eager        operations that a layer issues forward besides those of the plan, each a launch:
                 index lists, concatenation, dropout masks, views, message-function plumbing; twice
                 as many backward
    """

    released: bool = False
    precompute: bool = False
    layer_norm: bool = False
    rebuilds: bool = False
    batched: bool = False
    eager: int = 0


NATIVE = Software()
RELEASED = Software(released=True, eager=20)
"""Eager operations: counted in a layer of such code with autograd, not measured (assumed)."""
UVA_SHARE = 0.4
"""Of the host link's rate, for requests of 32-128 B: middle of 0.3 to 0.5 (simulation 5.5)."""
REBUILD_LAUNCHES = 100
"""Operations that choose rows, renumber them and make a graph of them (assumed)."""


def as_released(plan: Plan, shape: StackShape, software: Software) -> Plan:
    """The plan as the published software would carry it out."""
    if not (software.released or software.batched):
        return plan
    return replace(
        plan,
        iterations=tuple(
            tuple(tuple(_rank(steps, shape, software)) for steps in iteration)
            for iteration in plan.iterations
        ),
        notes={**plan.notes, "software": "as released"},
    )


def concurrent(cluster: Cluster, plan: Plan, ranks_per_host: int) -> Cluster:
    """The cluster as transfers in the background see it: several at once, each in its own thread.

    PipeGCN's code has a pool of 2 L threads and streams, so `gloo_async` is not the serial chain of
    `gloo_sync` (fullgraph section 7 and 16.2): as many chains run beside each other as there are
    transfers in an epoch and cores for them, and together they reach at most the device's link to
    its host. The plan keeps transfers in one lane, so that rate is said to be the lane's.
    """
    link, host = cluster.links.intra, cluster.links.host
    if cluster.transport != "gloo_staged" or host is None or cluster.collectives:
        return cluster
    steps = plan.iterations[0][0]
    transfers = sum(s.kind is Kind.ALL_TO_ALL and s.lane is Lane.BACKGROUND for s in steps)
    chains = max(1, min(transfers, cluster.host.cores // ranks_per_host))
    chain_rate = 1 / (1 / link.bytes_per_s.value + 2 / host.bytes_per_s.value)
    rate = min(chains * chain_rate, host.bytes_per_s.value)
    told = f"{chains} staged chains at once, at most the host link"
    faster = replace(link, bytes_per_s=Constant(value=rate, status="assumed", source=told))
    return replace(cluster, transport="gloo", links=replace(cluster.links, intra=faster))


def direct(cluster: Cluster) -> Cluster:
    """The cluster as NCCL uses it: no gloo, devices of a host as far apart as their host links."""
    host = cluster.links.host
    if cluster.transport != "gloo_staged" or host is None:
        return cluster
    return replace(cluster, transport="gloo", links=replace(cluster.links, intra=host))


def _rank(steps: RankSteps, shape: StackShape, software: Software) -> Iterator[Step]:
    dropped = {step.name for step in steps if _is_dropped(step, shape, software)}
    halo = {step.layer: step.source_rows for step in steps if step.kind is Kind.SDDMM
            and step.phase is Phase.FORWARD}  # fmt: skip
    seen: set[tuple[Phase, int]] = set()
    if software.rebuilds and all(step.name != "sample/rebuild" for step in steps):
        yield from _rebuilt(steps)
    for step in steps:
        if step.name in dropped:
            continue
        if software.rebuilds and step.name == "sample/rebuild":
            yield from _rebuilt(steps, step)
            continue
        kept = replace(step, after=tuple(a for a in step.after if a.step not in dropped))
        if shape.model.attention:
            kept = _input_exchanged(kept, shape, halo)
        if kept.name == "sync/gradients" and software.released:
            yield from _per_tensor(kept, shape)
            continue
        if kept.kind is Kind.OPTIMIZER:
            yield from _launches(kept, 10 * len(_tensors(shape, software)))
        if kept.name.endswith("/activation"):
            yield from _normalised(kept, software)
        if software.batched and kept.name in ("sample/draw", "fetch/gather"):
            yield _over_host_link(kept, shape)
        place = (kept.phase, kept.layer)
        if kept.layer > 0 and kept.kind is Kind.GEMM and place not in seen:
            seen.add(place)
            often = 1 if kept.phase is Phase.FORWARD else 2
            yield from _launches(kept, often * software.eager)
        yield kept


def _is_dropped(step: Step, shape: StackShape, software: Software) -> bool:
    """Steps of the first layer's exchange that such code does not have, and its product."""
    if step.layer != 1:
        return False
    part = step.name.rsplit("/", 1)[-1]
    exchange = part in ("pack", "unpack", "place", "smooth", "exchange", "to_host", "to_device")
    if shape.model.attention:  # inputs need no gradient; with precompute the halo's are at hand
        return exchange and (step.phase is Phase.BACKWARD or software.precompute)
    return software.precompute and (
        exchange or (step.kind is Kind.SPMM and step.phase is Phase.FORWARD)
    )


def _input_exchanged(step: Step, shape: StackShape, halo: dict[int, int]) -> Step:
    """An attention layer whose input travels and whose input is its predecessor's averaged heads.

    The layer's product is then taken of own and halo rows, and is as narrow inside as one head.
    """
    layer = step.layer
    if not 1 <= layer <= shape.num_layers:
        return step
    outer = shape.dims[layer]
    inside = shape.dims[layer - 1] // (shape.heads[layer - 2] if layer > 1 else 1)
    rows = halo.get(layer, step.rows)
    if step.name == f"forward/{layer}/gemm":
        return _gemm(step, rows, inside, outer, shape)
    if step.name == f"backward/{layer}/weight":
        return _gemm(step, inside, rows, outer, shape)
    if step.name == f"backward/{layer}/input":
        return _gemm(step, rows, outer, inside, shape)
    if step.kind in (Kind.ALL_TO_ALL, Kind.GATHER, Kind.SCATTER) and step.width:
        return _narrowed(step, inside, shape)
    return step


def _gemm(step: Step, m: int, k: int, n: int, shape: StackShape) -> Step:
    moved = (m * k + k * n + m * n) * shape.element_bytes
    return replace(step, rows=m, inner=k, width=n, flops=2 * m * k * n, bytes=moved)


def _narrowed(step: Step, width: int, shape: StackShape) -> Step:
    """The exchange, or the gather before it, at another width."""
    old, s = step.width, shape.element_bytes
    if step.kind is not Kind.ALL_TO_ALL:
        return replace(step, width=width, bytes=step.rows * (8 + 2 * width * s))
    return replace(
        step,
        width=width,
        rows=step.rows * width // old,
        bytes=step.bytes * width // old,
        send_bytes=tuple(size * width // old for size in step.send_bytes),
        buffer_bytes=step.buffer_bytes * width // old,
    )


def _normalised(step: Step, software: Software) -> Iterator[Step]:
    """LayerNorm before the activation."""
    if software.layer_norm:
        passes = NORM_PASSES[step.phase]
        size = passes * step.bytes // (2 if step.phase is Phase.FORWARD else 3)
        yield replace(step, name=f"{step.name}_norm", op="layer_norm", bytes=size, after=())


def _over_host_link(step: Step, shape: StackShape) -> Step:
    """What a step reads of host memory: a sector per drawn entry, or whole feature rows.

    Small reads reach `UVA_SHARE` of the link (simulation 5.5).
    """
    size = step.rows * step.width * shape.element_bytes
    if step.kind is Kind.SAMPLE:
        size = round(32 * step.nonzeros / UVA_SHARE)
    return Step(
        name=f"{step.name}_host", kind=Kind.COPY, op="copy_h2d", lane=step.lane, phase=step.phase,
        bytes=size,
    )  # fmt: skip


def _rebuilt(steps: RankSteps, step: Step | None = None) -> Iterator[Step]:
    """Making a graph of pairs: two radix sorts of 8-byte keys and values, a byte at a time."""
    entries = max(one.nonzeros for one in steps)
    made = Step(
        name="sample/rebuild", kind=Kind.ELEMENTWISE, op="rebuild", lane=Lane.COMPUTE,
        phase=Phase.SAMPLE, rows=entries, bytes=2 * 8 * 2 * 16 * entries,
        after=step.after if step else (),
    )  # fmt: skip
    yield made
    yield from _launches(made, REBUILD_LAUNCHES)


def _launches(step: Step, count: int) -> Iterator[Step]:
    """Operations so small that issuing them is all they cost."""
    for number in range(count):
        yield Step(
            name=f"{step.name}/eager{number}", kind=Kind.ELEMENTWISE, op="eager",
            lane=Lane.COMPUTE, phase=step.phase, layer=step.layer,
        )  # fmt: skip


def _tensors(shape: StackShape, software: Software | None = None) -> list[int]:
    """Elements of every parameter tensor, in the order of the layers."""
    sizes: list[int] = []
    for layer in range(1, shape.num_layers + 1):
        heads = shape.heads[layer - 2] if layer > 1 else 1
        fan_in, fan_out = shape.dims[layer - 1] // heads, shape.dims[layer]
        if shape.model.attention:
            sizes += [fan_in * fan_out, fan_out, fan_out, fan_out]
        else:
            sizes += [fan_in * fan_out, fan_out] * (2 if shape.model.self_weight else 1)
        if layer < shape.num_layers and (software is None or software.layer_norm):
            sizes += [fan_out, fan_out]
    return sizes


def _per_tensor(step: Step, shape: StackShape) -> Iterator[Step]:
    """One message per parameter tensor, one after the other (fullgraph 16.4)."""
    s, world = shape.element_bytes, len(step.group)
    sizes = _tensors(shape)
    for number, elements in enumerate(sizes):
        last = number == len(sizes) - 1
        after: tuple[After, ...] = step.after if number == 0 else ()
        yield replace(
            step,
            name=step.name if last else f"{step.name}/{number}",
            rows=elements,
            buffer_bytes=elements * s,
            bytes=all_reduce_bytes(elements * s, world),
            after=after,
        )
