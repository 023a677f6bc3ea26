"""Physics forms: seconds of an operation as a sum of costs that cannot be negative.

Every form is t = sum_k coefficient_k * term_k(facts; shapes), so that a fit is a non-negative
least-squares problem for fixed shapes (cache sizes). Forms follow physics and stay valid far
outside the calibrated points, where a regression would not (simulation 10.1).

Units: coefficients `*_s` are seconds, `s_per_*` seconds per counted thing, shapes `*_bytes` bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from gnnbench.costs.facts import Facts, Floats, miss_rate
from gnnbench.errors import SpecError, suggest
from gnnbench.steps import Kind

Shapes = Mapping[str, float]
KB, MB = 2.0**10, 2.0**20

# No fit may claim more than this, however it would help its few points: a byte from memory at
# 0.2 GB/s, a random access of 400 ns. Otherwise a large cache with dear misses imitates a bend in
# noisy samples, and explodes beyond them.
CEILINGS: Mapping[str, float] = {
    "s_per_byte": 5e-9,
    "s_per_missed_byte": 5e-9,
    "s_per_near_missed_byte": 5e-9,
    "s_per_last_missed_byte": 5e-9,
    "s_per_source_byte": 5e-9,
    "s_per_out_byte": 5e-9,
    "s_per_edge": 4e-7,
    "s_per_missed_edge": 4e-7,
    "s_per_missed_row": 4e-7,
    "s_per_vertex": 4e-7,
    "s_per_look": 4e-7,
    "s_per_missed_vertex": 1e-6,
    "s_per_missed_look": 4e-7,
    "s_per_missed_line": 4e-7,
}


LANES = 8.0
"""Elements that a core adds at a time; what is over of a row is added one by one."""
NARROW = 12.0
"""Columns of a product below which a library takes another path (MKL 2024 on AVX-512)."""
COLUMNS_OF_A_LINE = 16.0
"""Column numbers, of four bytes each, in a line of a cache."""
COLUMNS_AT_A_TIME = 128.0
"""Columns that the sparse product keeps in registers: wider rows read the pattern again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A named physics form.

    coefficients   names, in the order of the columns of `terms`
    shapes         names of cache sizes with the starting values that a fit tries
    terms          (facts, shapes) -> array (steps, coefficients)
    features       facts -> log features (steps, k); close features mean similar residuals
    feature_names  of the features, in order, as answers name them
    overlapped     coefficients of which only the largest counts (roofline); empty: costs add up
    """

    name: str
    coefficients: tuple[str, ...]
    terms: Callable[[Facts, Shapes], Floats]
    features: Callable[[Facts], Floats]
    feature_names: tuple[str, ...]
    shapes: Mapping[str, tuple[float, ...]]
    overlapped: tuple[str, ...] = ()

    def seconds(self, facts: Facts, params: Mapping[str, float]) -> Floats:
        # A form may gain a coefficient; models fitted before it then count it as zero.
        """Seconds of each step. Absent coefficients count as zero."""
        parts = self.terms(facts, params) * np.array(
            [params.get(c, 0.0) for c in self.coefficients]
        )
        return self.combine(parts)

    def combine(self, parts: Floats) -> Floats:
        """Add up the costs; of overlapped ones only the largest counts."""
        if not self.overlapped:
            total: Floats = parts.sum(axis=1)
            return total
        hidden = [self.coefficients.index(name) for name in self.overlapped]
        rest = [i for i in range(parts.shape[1]) if i not in hidden]
        longest: Floats = parts[:, rest].sum(axis=1) + parts[:, hidden].max(axis=1)
        return longest


def _columns(*columns: Floats | float, steps: int) -> Floats:
    return np.stack([np.broadcast_to(np.asarray(c, dtype=np.float64), steps) for c in columns], 1)


def _logs(*columns: Floats) -> Floats:
    # Logarithms of zero do not exist; a thousandth is below every count.
    out: Floats = np.log(np.maximum(np.stack(columns, axis=1), 1e-3))
    return out


def _linear(f: Facts, _: Shapes) -> Floats:
    return _columns(1.0, f.flops, f.bytes, steps=len(f))


def _gemm(f: Facts, p: Shapes) -> Floats:
    """Multiply-adds and each operand once; tall and skinny products live on the operands.

    Operands that outgrow the cache are read from memory. Libraries make products narrower than a
    register tile of products of a matrix and a vector, each of which reads the left operand.
    """
    left, right, out = f.rows * f.inner, f.inner * f.width, f.rows * f.width
    # Operands that fit the cache were left there by the operation before.
    moved = (left + right + out) * f.element_bytes
    missed = moved * miss_rate(moved, p.get("cache_bytes", 32 * MB))
    lines = np.maximum(f.rows, f.inner)
    # Below a register tile's width the library multiplies matrix and vector: the left operand is
    # read once per column.
    narrow = np.where(f.width < NARROW, left, 0.0)
    far = narrow * miss_rate(left * f.element_bytes, p.get("left_cache_bytes", 32 * MB))
    return _columns(1.0, f.flops, left, right, out, lines, missed, narrow, far, steps=len(f))


def _rows(f: Facts, p: Shapes) -> Floats:
    """Costs of elements, of nonzeros with a transcendental function each, and of rows.

    Bytes come from the cache or, where they outgrow it, from memory. Entries that are added up by
    column (`inner` values each) are read where their rows put them, and may miss a line each.
    """
    missed = f.bytes * miss_rate(f.bytes, p.get("cache_bytes", math.inf))
    # Elements over width are matrix rows: their count carries the loop overhead.
    lines = f.rows / np.maximum(f.width, 1.0)
    entry_lines = f.nonzeros / np.maximum(f.width, 1.0)
    far = f.missed_entries(p.get("cache_bytes", math.inf))
    scattered = np.where(f.inner > 0, lines * far, 0.0)
    return _columns(
        1.0,
        f.rows,
        f.nonzeros,
        f.bytes,
        missed,
        lines,
        entry_lines,
        scattered,
        steps=len(f),
    )


def _spmm(f: Facts, p: Shapes) -> Floats:
    """Source traffic at the speed of the cache levels that serve it, by reuse distances.

    Reads beyond a core's own caches cost their bytes and a latency that only partly overlaps; those
    beyond the last cache cost more. The first read of a row comes from farther than its distance
    says, because other operations ran since the last epoch. Elements of a row beyond a whole number
    of vector lanes cost extra. With `inner` weights per entry (heads
    of attention), a row is that many pieces, and weights are read in any order; otherwise the
    pattern is read once for each block of columns.
    """
    # A row occupies whole cache lines, whatever part of the last one it uses.
    traffic = f.nonzeros * f.row_bytes(p.get("line_bytes", 64.0))
    near = f.missed(p.get("near_cache_bytes", math.inf))
    far = f.missed(p.get("cache_bytes", math.inf))
    last = f.missed(p.get("last_cache_bytes", math.inf))
    # Every row that is read at all is read a first time.
    first = np.minimum(f.source_rows, f.nonzeros) * f.row_bytes(p.get("line_bytes", 64.0))
    out = f.rows * f.width * f.element_bytes
    pieces = np.maximum(f.inner, 1.0)
    # Wide rows are processed in blocks of columns, and each block reads the pattern again.
    blocks = np.where(f.inner > 0, 1.0, np.ceil(np.maximum(f.width, 1.0) / COLUMNS_AT_A_TIME))
    # Elements beyond a whole number of vector lanes are added one at a time.
    rest = f.nonzeros * pieces * np.mod(f.width / pieces, LANES)
    weights = f.nonzeros * f.inner
    sizes = (p.get(name, math.inf) for name in ("cache_bytes", "last_cache_bytes"))
    # Weights of a transposed pattern are read in any order: each may miss a line.
    line, late = (f.nonzeros * f.missed_weights(size) for size in sizes)
    return _columns(
        1.0,
        f.rows,
        f.nonzeros * blocks,
        traffic,
        traffic * near,
        traffic * far,
        traffic * last,
        f.nonzeros * blocks * far,
        first,
        out,
        rest,
        weights,
        np.where(f.inner > 0, line, 0.0),
        np.where(f.inner > 0, late, 0.0),
        steps=len(f),
    )


def _gather(f: Facts, p: Shapes) -> Floats:
    """Rows read by the cache level that holds them, and written, to memory where they are many.

    A row that is far costs its bytes, and in random order the latency of a miss as well: rising
    rows are fetched ahead by the processor.
    """
    traffic = f.rows * f.row_bytes(p.get("line_bytes", 64.0))
    near = f.missed(p.get("near_cache_bytes", math.inf))
    far = f.missed(p.get("cache_bytes", math.inf))
    # Written rows leave the cache only if they are more than it holds.
    out = traffic * miss_rate(traffic, p.get("cache_bytes", math.inf))
    late = np.where(f.ordered, 0.0, f.rows * far)
    return _columns(1.0, f.rows, traffic, traffic * near, traffic * far, late, out, steps=len(f))


def _sample(f: Facts, p: Shapes) -> Floats:
    """Rows, edges and vertices of a batch, looks of their own, and what misses the caches.

    An edge whose end was found before misses if the lines of the batch outgrow a core's cache. The
    first touch of a vertex, and a look at an edge, miss if the tables of the graph outgrow the last
    cache: between two batches, training has displaced what is smaller.
    """
    # Each distinct vertex found touches about one line of the index arrays.
    again = f.nonzeros * miss_rate(f.source_rows * 64.0, p.get("cache_bytes", math.inf))
    far = miss_rate(f.width, p.get("last_cache_bytes", math.inf))
    return _columns(
        1.0,
        f.rows,
        f.nonzeros,
        again,
        f.source_rows,
        f.inner,
        f.source_rows * far,
        f.inner * far,
        steps=len(f),
    )


def _scan(f: Facts, p: Shapes) -> Floats:
    """As `_sample`, of a sampler that looks at all neighbours of a vertex, one after the other.

    A hash decides about each neighbour, and no table is looked up. Column numbers of a vertex lie
    side by side, so that misses are counted by the cache line: one for the first neighbour of each
    vertex, and one for every 16 neighbours.
    """
    terms = _sample(f, p)
    far = miss_rate(f.width, p.get("last_cache_bytes", math.inf))
    terms[:, -1] = (f.rows + f.inner / COLUMNS_OF_A_LINE) * far
    return terms


def _gap(f: Facts, p: Shapes) -> Floats:
    """Time of the interpreter between steps, longer if the step before displaced its caches."""
    return _columns(1.0, miss_rate(f.bytes, p.get("cache_bytes", math.inf)), steps=len(f))


_NEAR = (256 * KB, 1 * MB)
_FAR = (4 * MB, 16 * MB, 48 * MB)
_SAMPLED = (
    "t0_s",
    "s_per_row",
    "s_per_edge",
    "s_per_missed_edge",
    "s_per_vertex",
    "s_per_look",
    "s_per_missed_vertex",
)

_SAMPLE = Form(
    name="sample",
    coefficients=(*_SAMPLED, "s_per_missed_look"),
    terms=_sample,
    features=lambda f: _logs(
        f.rows, f.nonzeros / np.maximum(f.rows, 1), f.source_rows / np.maximum(f.nonzeros, 1)
    ),
    feature_names=("seeds", "edges per seed", "vertices per edge"),
    shapes={"cache_bytes": (1 * MB, *_FAR), "last_cache_bytes": (12 * MB, 40 * MB)},
)
_FORMS = (
    Form(
        name="linear",
        coefficients=("t0_s", "s_per_flop", "s_per_byte"),
        terms=_linear,
        features=lambda f: _logs(f.flops, f.bytes),
        feature_names=("flops", "bytes"),
        shapes={},
    ),
    Form(
        name="roofline",
        coefficients=("t0_s", "s_per_flop", "s_per_byte"),
        terms=_linear,
        features=lambda f: _logs(f.flops, f.bytes),
        feature_names=("flops", "bytes"),
        shapes={},
        overlapped=("s_per_flop", "s_per_byte"),
    ),
    Form(
        name="gemm",
        coefficients=(
            "t0_s",
            "s_per_flop",
            "s_per_left",
            "s_per_right",
            "s_per_out",
            "s_per_line",
            "s_per_missed_byte",
            "s_per_narrow",
            "s_per_missed_narrow",
        ),
        terms=_gemm,
        features=lambda f: _logs(f.rows, f.inner, f.width),
        feature_names=("rows", "inner", "width"),
        shapes={"cache_bytes": (1 * MB, *_FAR), "left_cache_bytes": (16 * MB,)},
    ),
    Form(
        name="rows",
        coefficients=(
            "t0_s",
            "s_per_row",
            "s_per_edge",
            "s_per_byte",
            "s_per_missed_byte",
            "s_per_line",
            "s_per_edge_line",
            "s_per_missed_line",
        ),
        terms=_rows,
        features=lambda f: _logs(f.rows, f.width + 1.0, f.nonzeros + 1.0),
        feature_names=("elements", "width", "entries"),
        shapes={"cache_bytes": (1 * MB, *_FAR)},
    ),
    Form(
        name="spmm",
        coefficients=(
            "t0_s",
            "s_per_row",
            "s_per_edge",
            "s_per_byte",
            "s_per_near_missed_byte",
            "s_per_missed_byte",
            "s_per_last_missed_byte",
            "s_per_missed_edge",
            "s_per_source_byte",
            "s_per_out_byte",
            "s_per_rest",
            "s_per_weight",
            "s_per_missed_weight",
            "s_per_last_missed_weight",
        ),
        terms=_spmm,
        features=lambda f: _logs(
            f.rows,
            f.nonzeros / np.maximum(f.rows, 1),
            f.width,
            f.source_rows,
            f.inner + 1.0,
            f.mean_distance(),
        ),
        feature_names=("rows", "mean degree", "width", "source rows", "heads", "reuse distance"),
        shapes={
            "near_cache_bytes": _NEAR,
            "cache_bytes": (2 * MB,),
            "last_cache_bytes": (12 * MB, 40 * MB),
        },
    ),
    Form(
        name="gather",
        coefficients=(
            "t0_s",
            "s_per_row",
            "s_per_byte",
            "s_per_near_missed_byte",
            "s_per_missed_byte",
            "s_per_missed_row",
            "s_per_out_byte",
        ),
        terms=_gather,
        # Twice the mean distance: of rows in random order, the rows of the table.
        features=lambda f: _logs(f.rows, f.width, 2.0 * f.mean_distance()),
        feature_names=("rows", "width", "source rows"),
        shapes={"near_cache_bytes": _NEAR, "cache_bytes": _FAR},
    ),
    Form(
        name="gap",
        coefficients=("t0_s", "cold_s"),
        terms=_gap,
        features=lambda f: _logs(f.bytes + 1.0),
        feature_names=("bytes",),
        shapes={"cache_bytes": (*_NEAR, 4 * MB)},
    ),
    _SAMPLE,
    replace(
        _SAMPLE,
        name="scan",
        coefficients=(*_SAMPLED, "s_per_missed_line"),
        terms=_scan,
        features=lambda f: _logs(
            f.rows, f.inner / np.maximum(f.rows, 1), f.source_rows / np.maximum(f.nonzeros, 1)
        ),
        feature_names=("seeds", "neighbours per seed", "vertices per edge"),
    ),
)
FORMS: Mapping[str, Form] = {form.name: form for form in _FORMS}

FORM_OF_KIND: Mapping[str, str] = {
    Kind.GEMM: "gemm",
    Kind.SPMM: "spmm",
    Kind.SDDMM: "spmm",
    Kind.GATHER: "gather",
    Kind.SCATTER: "gather",
    Kind.SAMPLE: "sample",
}
FORM_OF_OP: Mapping[str, str] = {"sample_labor": "scan"}
"""Operations with a form of their own, where they are calibrated."""


def form(name: str) -> Form:
    """Return a form by name; SpecError for an unknown one."""
    if name not in FORMS:
        raise SpecError(f"form: found {name!r}, {suggest(name, FORMS)}")
    return FORMS[name]
