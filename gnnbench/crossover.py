"""From which number of ranks does the mixture of parallelism send fewer bytes than partitions?

Per unit of width and vertex, partition parallelism sends S/N, which grows with the number of ranks
depending on how hard the graph is to cut; the mixture sends 2(P-1)/P, which is below 2. Both have
reductions in the first layer, so whole epochs are compared (fullgraph section 15). With attention,
partition parallelism sends nothing more, because scores are computed from halo rows; the mixture
also sends the scores of heads that its slices cut. The all-reduce of the gradients is the same in
both and listed separately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from gnnbench.approaches.base import GraphLike
from gnnbench.approaches.whole_graph.relayout import Relayouts, even_split
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.data.graph import Graph
from gnnbench.data.profile import GraphProfile
from gnnbench.errors import SpecError, Unsupported
from gnnbench.models.names import MODELS
from gnnbench.spec import ModelSpec
from gnnbench.work import all_reduce_bytes

DEFAULT_RANKS = (2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossoverPoint:
    """Both approaches at one number of ranks; bytes per epoch, sent by all ranks together.

    halo_per_node       S/N of the partition
    relayout_per_node   2(P-1)/P, the same measure for the mixture
    *_bytes             features, scores and gradients, with each approach's reductions in layer 1
    *_precomputed_bytes the same with layer 1 aggregated once before training in both; None with
                        attention, whose weights change
    weights_bytes       the gradient all-reduce, in each of them
    basis               source of S
    """

    ranks: int
    halo_per_node: float
    relayout_per_node: float
    partition_bytes: int
    mixture_bytes: int
    partition_precomputed_bytes: int | None
    mixture_precomputed_bytes: int | None
    weights_bytes: int
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossover:
    """Points by increasing number of ranks, and where the mixture first sends fewer bytes.

    `first_*` are numbers of ranks among those asked for, or None: per unit of width (the table of
    section 15), for a whole epoch, and for a whole epoch with precomputation.
    """

    graph: str
    model: str
    dims: tuple[int, ...]
    orders: tuple[str, ...]
    orders_precomputed: tuple[str, ...] | None
    points: tuple[CrossoverPoint, ...]

    @property
    def first_per_width(self) -> int | None:
        return self._first(lambda p: p.relayout_per_node < p.halo_per_node)

    @property
    def first_epoch(self) -> int | None:
        return self._first(lambda p: p.mixture_bytes < p.partition_bytes)

    @property
    def first_precomputed(self) -> int | None:
        return self._first(
            lambda p: (
                p.mixture_precomputed_bytes is not None
                and p.partition_precomputed_bytes is not None
                and p.mixture_precomputed_bytes < p.partition_precomputed_bytes
            )
        )

    def _first(self, fewer: Callable[[CrossoverPoint], bool]) -> int | None:
        return next((point.ranks for point in self.points if fewer(point)), None)


def crossover(
    graph: GraphLike,
    model: ModelSpec,
    ranks: Sequence[int] = DEFAULT_RANKS,
    *,
    order: str = "min_width",
    objective: str = "vol",
    element_bytes: int = 4,
    seed: int = 0,
    done: Callable[[int], None] = lambda ranks: None,
) -> Crossover:
    """Count both approaches' bytes on each number of ranks.

    Args:
        graph: a graph, which is partitioned for every number of ranks, or a profile's halo curve.
        model: kind, hidden width and layers; input dropout takes the mixture's first reduction.
        ranks: numbers of ranks, each at least 2.
        order: the policy of product orders, as the approaches' knob.
        objective: what METIS minimises, "vol" or "cut".
        element_bytes: s.
        seed: of the partitioner.
        done: called after each number of ranks.

    Raises:
        SpecError: a number of ranks below 2, a graph without features or classes, a model that its
            kind refuses, or a profile that knows nothing of METIS.
        Unsupported: more parts than nodes.
    """
    if not graph.num_features or not graph.num_classes:
        found = f"{graph.num_features} features and {graph.num_classes} classes"
        raise SpecError(f"graph {graph.name}: found {found}; use a graph or profile that has both")
    counts = sorted(set(ranks))
    if not counts or counts[0] < 2:
        raise SpecError(f"ranks: found {list(ranks)}; allowed: numbers of at least 2")
    card = MODELS.get(model.kind)
    problems = card.problems(model)
    if problems:
        raise SpecError(problems)
    dims = card.dims(model, graph.num_features, graph.num_classes)
    shape = StackShape.of(card, model, dims, element_bytes, order)
    once = None
    if not card.attention:
        once = StackShape.of(card, model, dims, element_bytes, order, precompute=True)
    points = []
    for count, copies, basis in _halos(graph, counts, objective, seed):
        points.append(_point(graph.num_nodes, shape, once, count, copies, basis))
        done(count)
    return Crossover(
        graph=graph.name,
        model=model.kind,
        dims=dims,
        orders=shape.orders,
        orders_precomputed=None if once is None else once.orders,
        points=tuple(points),
    )


def _halos(
    graph: GraphLike, ranks: Sequence[int], objective: str, seed: int
) -> Iterator[tuple[int, int, str]]:
    """Ranks, total halo copies S, and the source of S."""
    for count in ranks:
        if isinstance(graph, GraphProfile):
            point, basis = graph.expected_halo(count, f"metis-{objective}")
            yield count, round(point.halo_per_node * graph.num_nodes), basis
        else:
            yield count, _copies(graph, count, objective, seed), "counted on the real graph"


def _copies(graph: Graph, parts: int, objective: str, seed: int) -> int:
    from gnnbench.data.halo import halo_counts
    from gnnbench.data.partition import partition

    if parts > graph.num_nodes:
        raise Unsupported(
            f"graph {graph.name}: {graph.num_nodes} vertices, too few for {parts} partitions; "
            "give fewer --ranks"
        )
    owners = partition(graph, parts, "metis", objective=objective, seed=seed)
    return int(halo_counts(graph, owners, parts)[0].sum())


def _point(
    num_nodes: int, shape: StackShape, once: StackShape | None, ranks: int, copies: int, basis: str
) -> CrossoverPoint:
    """Both approaches on this many ranks; in `once` layer 1 is aggregated before training."""
    s, rows = shape.element_bytes, even_split(num_nodes, ranks)

    def partition(of: StackShape) -> int:
        return s * copies * (of.forward_widths() + of.backward_widths())  # FG-14

    def mixture(of: StackShape) -> int:
        return s * Relayouts.of(of, ranks=ranks).epoch_elements(rows)

    return CrossoverPoint(
        ranks=ranks,
        halo_per_node=copies / num_nodes,
        relayout_per_node=2 * (ranks - 1) / ranks,
        partition_bytes=partition(shape),
        mixture_bytes=mixture(shape),
        partition_precomputed_bytes=None if once is None else partition(once),
        mixture_precomputed_bytes=None if once is None else mixture(once),
        weights_bytes=ranks * all_reduce_bytes((shape.num_parameters + 1) * s, ranks),
        basis=basis,
    )
