"""Changing a matrix between row slices and column slices: distribution and volume.

An N x F matrix is split by rows (rank i holds n_i x F) or by columns (rank i holds N x f_i). A
change from one to the other sends everything except the block that a rank has in both: N F - sum_i
n_i f_i elements in either direction (fullgraph section 9, FG-18).

Attention computes weights of entries per head, so a rank needs the scores of the heads that its
columns belong to. Where no slice cuts a head, it computes them from its columns. Otherwise every
rank computes the scores of its rows, as destination and as source, and an all-to-all distributes
them as a matrix of 2 k_j columns on rank j, with k_j the heads of which rank j has columns; in the
backward pass their gradients return and are added. Values of entries are never sent: the
contribution of some columns to the gradient of a weight passes through dropout, softmax, slope and
the sums over entries, all of which are linear in it, so only the sums are exchanged.

An epoch of attention, whose layers all transform first, sends over all ranks

    4 sum_l (N d_l - sum_i n_i f_li) + 4 sum_l (N sum_j k_lj - sum_i n_i k_li)

elements; the second sum runs over layers with a cut head. If the owners of rows computed the
weights once and sent them on, E sum_j k_lj elements would be sent each way instead of 2 N sum_j
k_lj; here all ranks that share a head compute its weights. k_lj is at most f_lj, so scores never
take more than the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnnbench import work
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.steps import Kind, Size, Work


def even_split(total: int, parts: int) -> tuple[int, ...]:
    """Split `total` into shares that differ by at most one, larger shares first (FG-21)."""
    share, left = divmod(total, parts)
    return (share + 1,) * left + (share,) * (parts - left)


def relayout_elements(rows: Sequence[int], columns: Sequence[int]) -> int:
    """Elements that all ranks together send in one re-layout.

    Args:
        rows: n_i of every rank.
        columns: f_i of every rank.
    """
    own = sum(n * f for n, f in zip(rows, columns, strict=True))
    return sum(rows) * sum(columns) - own


def regroup_work(rows: Size, width: int, ranks: int, element_bytes: int) -> Work:
    """Copy between whole rows and one block for each rank that has columns of them, either way.

    Args:
        rows: own rows.
        width: of the matrix.
        ranks: among which its columns are split.
        element_bytes: s.
    """
    pieces = min(ranks, width)
    sizes = rows * pieces, -(-width // pieces), rows * pieces
    copied = work.gather(*sizes, element_bytes, ids=False)
    return copied._replace(bytes=2 * rows * width * element_bytes)


def score_blocks_work(
    rows: Size, counts: Sequence[int], element_bytes: int, *, adds: bool = False
) -> Work:
    """Copy both scores of own rows into one block for each rank with heads; or add blocks up.

    Args:
        rows: own rows.
        counts: k_j, heads of every rank.
        element_bytes: s.
        adds: blocks of gradients that came back are added to those of the rows.
    """
    total, pieces = sum(counts), sum(count > 0 for count in counts)
    sizes = 2 * rows * pieces, -(-total // pieces), 2 * rows
    made = work.gather(*sizes, element_bytes, ids=False)
    made = made._replace(bytes=4 * rows * total * element_bytes)
    return made._replace(kind=Kind.SCATTER, op="scatter_add") if adds else made


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSlice:
    """The heads that a rank's columns belong to: `count` from `first` on.

    `offset` columns of head `first` lie on earlier ranks.
    """

    first: int
    count: int
    offset: int

    @property
    def stop(self) -> int:
        return self.first + self.count


def head_slices(width: int, heads: int, parts: int) -> tuple[HeadSlice, ...]:
    """What each rank has of the heads of a layer whose columns are split evenly."""
    head_width, start, slices = width // heads, 0, []
    for columns in even_split(width, parts):
        first, offset = divmod(start, head_width)
        count = -(-(offset + columns) // head_width) if columns else 0
        slices.append(HeadSlice(first=first, count=count, offset=offset))
        start += columns
    return tuple(slices)


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayouts:
    """The changes of layout in one epoch of the mixture.

    forward, backward   widths of the changes per layer, in order: none, (w,) or (w, w)
    x_rows, x_columns   layouts in which the input features are held
    heads               attention: heads of every rank's columns, per layer
    score_heads         attention: k_j of every rank where a head is cut, else none, per layer
    """

    forward: tuple[tuple[int, ...], ...]
    backward: tuple[tuple[int, ...], ...]
    x_rows: bool
    x_columns: bool
    heads: tuple[tuple[HeadSlice, ...], ...] = ()
    score_heads: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, shape: StackShape, *, ranks: int) -> Relayouts:
        """Derive the changes of layout of a model (table of fullgraph section 9).

        Every aggregation brings its input to columns and its output back to rows, at width w_l; so
        does its gradient. A first layer that aggregates first needs fewer: its input has no
        gradient and can be held in columns from the start, unless input dropout changes it in every
        epoch, which needs the rows. A precomputed first layer does not aggregate. On one rank both
        layouts are the same matrix.
        """
        layers = range(1, shape.num_layers + 1)
        pairs: list[tuple[int, ...]] = [(shape.exchange_width(layer),) * 2 for layer in layers]
        forward, backward = list(pairs), list(pairs)
        x_columns = False
        if shape.orders[0] == "aggregate_first":
            backward[0] = ()
            x_columns = not shape.precompute and shape.input_dropout == 0 and ranks > 1
            if shape.precompute:
                forward[0] = ()
            elif x_columns:
                forward[0] = (shape.dims[0],)
        x_rows = shape.model.self_weight or not (shape.precompute or x_columns)
        heads: list[tuple[HeadSlice, ...]] = []
        if shape.model.attention:
            widths = zip(shape.dims[1:], shape.heads, strict=True)
            heads = [head_slices(width, count, ranks) for width, count in widths]
        return cls(
            forward=tuple(forward),
            backward=tuple(backward),
            x_rows=x_rows,
            x_columns=x_columns,
            heads=tuple(heads),
            score_heads=tuple(
                tuple(part.count for part in slices) if sum(p.count for p in slices) > count else ()
                for slices, count in zip(heads, shape.heads, strict=False)
            ),
        )

    @property
    def widest(self) -> int:
        """The widest matrix that returns to rows; 0 where none does."""
        return max((layer[0] for layer in (*self.forward, *self.backward) if layer), default=0)

    @property
    def widest_there(self) -> int:
        """The widest matrix that goes to columns and returns; 0 where none does."""
        layers = (*self.forward, *self.backward)
        return max((layer[0] for layer in layers if len(layer) == 2), default=0)

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of every re-layout of an epoch."""
        return tuple(w for layer in (*self.forward, *self.backward) for w in layer)

    def epoch_elements(self, rows: Sequence[int]) -> int:
        """Elements sent by all ranks in one epoch with columns split evenly (FG-19)."""
        parts = len(rows)
        features = sum(relayout_elements(rows, even_split(width, parts)) for width in self.widths)
        # Two scores per vertex and head; forward they go to the columns, backward come back.
        scores = sum(4 * relayout_elements(rows, counts) for counts in self.score_heads if counts)
        return features + scores
