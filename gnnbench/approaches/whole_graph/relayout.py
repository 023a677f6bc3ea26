"""Re-laying out a matrix between row slices and column slices: who holds what, and its volume.

An N x F matrix lies in rows (rank i holds n_i x F) or in columns (rank i holds N x f_i). Going from
one to the other moves everything but the block that a rank has in both: N F - sum_i n_i f_i
elements, whatever the direction (fullgraph section 9, FG-18).

Attention weighs entries per head, so a rank needs the scores of the heads that its columns belong
to. Where no head is cut by a slice it computes them from its columns. Else every rank computes the
scores of its rows, both ends', and they are laid out anew as a matrix of 2 k_j columns on rank j,
k_j the heads that it has columns of; backward, their gradients return and are summed. No value of
an entry ever travels: what a part of a head's columns adds to the gradient of a weight goes through
dropout, softmax, slope and the sums over entries one by one, which are linear in it, and only the
sums meet.

So an epoch of attention, all of whose layers transform first, moves over all ranks

    4 sum_l (N d_l - sum_i n_i f_li) + 4 sum_l (N sum_j k_lj - sum_i n_i k_li)

elements, the second sum over layers with a cut head only. Were weights computed once, by the owners
of rows, and handed on, E sum_j k_lj elements would move each way instead of 2 N sum_j k_lj; here
all ranks that share a head compute its weights. k_lj is at most f_lj: scores never take more than
the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnnbench import work
from gnnbench.approaches.writing.shape import StackShape
from gnnbench.steps import Kind, Size, Work


def even_split(total: int, parts: int) -> tuple[int, ...]:
    """Deal `total` out in shares that differ by at most one, the larger ones first (FG-21)."""
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
    """Which re-layouts an epoch of the mixture takes.

    forward, backward   per layer, the widths of its re-layouts, in order: none, (w,) or (w, w)
    x_rows, x_columns   in which layouts the input features are held
    heads               attention: per layer, the heads of every rank's columns
    score_heads         attention: per layer, k_j of every rank where a head is cut, else none
    """

    forward: tuple[tuple[int, ...], ...]
    backward: tuple[tuple[int, ...], ...]
    x_rows: bool
    x_columns: bool
    heads: tuple[tuple[HeadSlice, ...], ...] = ()
    score_heads: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, shape: StackShape, *, ranks: int) -> Relayouts:
        """Work out the table of fullgraph section 9 for a model.

        Every aggregation takes its input to columns and its output back to rows, at the width w_l,
        and so does its gradient. The first layer takes less when it aggregates first: its input has
        no gradient and can be held in columns from the start, unless it is dropped out anew every
        epoch, which needs the rows. Precomputed, it does not aggregate at all. On one rank both
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
