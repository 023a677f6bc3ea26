"""Seconds of GPU kernels from shape facts and facts of the device: one form for all devices.

Every form is a sum of physical costs with dimensionless coefficients, so that coefficients fitted
on some devices predict another from its bandwidths. The SpMM form began as the five-term form of
the reference on public measurements. It adds what the tables show: cuSPARSE multiplies 128 columns
at a time, so that its working set stops growing there and the pattern is read again for each tile;
row-split kernels wait for their longest row, which one processor walks at the latency of its loads;
operands that all fit in the cache stay there between operations; cuSPARSE issues instructions for
every row and 32 columns; reads in random order hit a cache less than reads of a graph whose order
has locality.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gnnbench.costs.devices import DeviceFacts

Floats = npt.NDArray[np.float64]
Params = Mapping[str, float]

COLUMNS_AT_A_TIME = 128.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shapes:
    """Shapes of kernel calls, one entry per call.

    Sparse kernels: rows, columns, nonzeros of the matrix and width of the dense operand. GEMM: rows
    M, columns N, inner K. `skew` is the standard deviation of row lengths over their mean,
    `longest` the longest row (NaN: unknown), `shuffled` 1.0 where the order of vertices is random.
    """

    rows: Floats
    columns: Floats
    nonzeros: Floats
    width: Floats
    inner: Floats
    skew: Floats
    longest: Floats
    shuffled: Floats
    element_bytes: float = 4.0

    @classmethod
    def of(cls, *, element_bytes: float = 4.0, **columns: npt.ArrayLike) -> Shapes:
        """Build from some columns; the others are zero, typical skew 1, longest row unknown."""
        given = {k: np.atleast_1d(np.asarray(v, dtype=np.float64)) for k, v in columns.items()}
        size = max(len(v) for v in given.values())
        default = {"skew": 1.0, "longest": np.nan}
        # A kernel leaves the sizes that it does not use at zero.
        for name in (
            "rows",
            "columns",
            "nonzeros",
            "width",
            "inner",
            "skew",
            "longest",
            "shuffled",
        ):
            given.setdefault(name, np.full(size, default.get(name, 0.0)))
        return cls(element_bytes=element_bytes, **given)

    def take(self, index: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Shapes:
        """The calls of some places."""
        names = [n for n in self.__slots__ if n != "element_bytes"]
        parts = {name: getattr(self, name)[index] for name in names}
        return Shapes(element_bytes=self.element_bytes, **parts)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kind of kernel with a form.

    start    coefficients at which a fit starts, and to which it is drawn where points say little
    spread   how far (log) a coefficient may go for the price of one standard deviation
    known    facts that a device needs
    draw     weight of that price in a fit to several devices; chosen by leaving devices out
    device_draw   the same in a fit to one device, drawn to that of all; by leaving matrices out
    """

    name: str
    operation: str
    seconds: Callable[[Shapes, DeviceFacts, Params], Floats]
    start: Params
    spread: Params
    known: tuple[str, ...]
    draw: float = 0.3
    device_draw: float = 0.3

    def applies(self, device: DeviceFacts) -> bool:
        """Whether the device's facts suffice."""
        return all(getattr(device, name) for name in self.known)


def _hit_rate(table_bytes: Floats, cache_bytes: float, exponent: Floats, share: Floats) -> Floats:
    """Share of repeated reads that hit a cache; falls as a power of the table's size beyond it."""
    # Capped, because a power of a huge ratio overflows.
    over = np.minimum(table_bytes / (share * cache_bytes), 1e6)
    rate: Floats = (1.0 + over ** (3.0 * exponent)) ** (-1.0 / 3.0)
    return rate


def _spmm(s: Shapes, d: DeviceFacts, p: Params, tile: float) -> Floats:
    assert d.cache_bytes_per_s is not None
    size, memory = s.element_bytes, d.memory_bytes_per_s
    # Columns are processed in tiles: only one tile's columns compete for the cache at a time.
    at_a_time = np.minimum(s.width, tile)
    tiles = s.width / np.maximum(at_a_time, 1.0)
    gathered = s.nonzeros * s.width * size
    distinct = np.minimum(s.columns, s.nonzeros) * s.width * size
    shuffled = s.shuffled > 0
    hit = _hit_rate(
        s.columns * at_a_time * size,
        d.cache_bytes,
        # A shuffled order without hubs has no locality beyond what the cache holds at random.
        np.where(shuffled & (s.skew < 0.9), 1.0, p["locality"]),
        np.where(shuffled, 1.15, p["cache_share"]),
    )
    # The pattern is read once per tile, partly from cache: the root lies between once and every
    # time.
    pattern = (8.0 * s.nonzeros + 4.0 * s.rows) * np.sqrt(tiles)
    output = s.rows * s.width * size
    # Operands that all fit in the cache were left there by the operation or the call before.
    held = np.minimum((distinct + output + pattern) / (p["held"] * d.cache_bytes), 1e6)
    away = held**4 / (1.0 + held**4)
    far = away / memory + (1.0 - away) / d.cache_bytes_per_s
    total = (
        p["launch"] * 1e-6
        + p["cache"] * gathered / d.cache_bytes_per_s
        + (p["output"] * output + p["pattern"] * pattern + p["missed"] * distinct) * far
        + p["missed"] * (gathered - distinct) * (1.0 - hit) / memory
    )
    if p.get("row"):
        total = total + p["row"] * s.rows * np.ceil(s.width / 32.0) / d.issue_per_s
    if p.get("longest"):
        of_one = d.cache_bytes_per_s / d.processors
        total = total + p["longest"] * longest_row(s) * np.maximum(s.width, 32.0) * size / of_one
    if p.get("entry"):
        # Instructions per entry and 32 columns overlap with bytes in part (a root of squares).
        launch = p["launch"] * 1e-6
        issued = s.nonzeros * np.ceil(s.width / 32.0) + 8.0 * s.rows
        total = launch + np.hypot(total - launch, p["entry"] * issued / d.issue_per_s)
    if p.get("chain"):
        # One processor walks a row entry by entry, and waits for the rows that each one names. All
        # others work meanwhile.
        assert d.cache_latency_s is not None and d.memory_latency_s is not None
        wait = hit * d.cache_latency_s + (1.0 - hit) * d.memory_latency_s
        wider = (s.width / 64.0) ** p["chain_width"]
        launch = p["launch"] * 1e-6
        total = launch + np.hypot(total - launch, p["chain"] * longest_row(s) * wait * wider)
    return np.asarray(total)


def longest_row(s: Shapes) -> Floats:
    """Entries of the longest row; where it is not known, the extreme of a log-normal degree law.

    Such a law with the deviation of the row lengths meets the longest rows of the fitted graphs
    within a factor of two, from road networks (12 entries) to wiki-Talk (100,022).
    """
    mean = s.nonzeros / np.maximum(s.rows, 1.0)
    variance = np.log1p(s.skew**2)
    reach = np.sqrt(2.0 * variance * np.log(np.maximum(s.rows, 2.0)))
    guess = np.minimum(mean * np.exp(reach - variance / 2.0), np.maximum(s.columns, 1.0))
    return np.asarray(np.where(np.isnan(s.longest), guess, s.longest))


def _spmm_tiled(s: Shapes, d: DeviceFacts, p: Params) -> Floats:
    return _spmm(s, d, p, COLUMNS_AT_A_TIME)


def _spmm_by_row(s: Shapes, d: DeviceFacts, p: Params) -> Floats:
    return _spmm(s, d, p, np.inf)


def _sddmm(s: Shapes, d: DeviceFacts, p: Params) -> Floats:
    """Instructions and bytes overlap in part (a root of squares)."""
    assert d.cache_bytes_per_s is not None and d.launch_s is not None
    size, issue = s.element_bytes, d.issue_per_s
    gathered = s.nonzeros * s.width * size
    distinct = np.minimum(s.columns, s.nonzeros) * s.width * size
    ones = np.ones(len(s))
    table, share = s.columns * s.width * size, p["cache_share"] * ones
    # All columns of a row are read at once here: the table is not tiled.
    hit = _hit_rate(table, d.cache_bytes, p["locality"] * ones, share)
    # Instructions are counted per entry, per line of 128 bytes and per row.
    issued = p["entry"] * s.nonzeros + p["line"] * gathered / 128.0 + p["row"] * s.rows
    cached = p["cache"] * gathered / d.cache_bytes_per_s
    memory = s.rows * s.width * size + p["pattern"] * 12.0 * s.nonzeros + 4.0 * s.rows
    memory = memory + distinct + (gathered - distinct) * (1.0 - hit)
    moved = cached + p["missed"] * memory / d.memory_bytes_per_s
    return np.asarray(p["launch"] * d.launch_s + np.hypot(issued / issue, moved))


def _gemm(s: Shapes, d: DeviceFacts, p: Params) -> Floats:
    """Padded tiles on some of the processors, operands from cache and memory, a chain along K.

    The smallest products take 5,500 to 5,900 clocks on A100, H100 and L40S, which is 2.2 to 4.2 us:
    what a kernel takes to begin and end is instructions.
    """
    assert d.cache_bytes_per_s is not None
    if s.element_bytes == 2.0:
        assert d.bf16_flops_per_s is not None
        peak = d.bf16_flops_per_s
    else:
        peak = d.fp32_flops_per_s
    m, n, k, size = s.rows, s.width, s.inner, s.element_bytes
    across, down = np.ceil(m / 64.0), np.ceil(n / 64.0)
    # Tiles fewer than processors leave some of them idle.
    busy = np.minimum(across * down / d.processors, 1.0)
    flops = 2.0 * across * down * 64.0 * 64.0 * k
    moved = size * (m * k + k * n + m * n)
    # Small operands stay in the cache; beyond its size each is read from memory.
    missed = 1.0 / (1.0 + (p["cache_share"] * 5e7 / np.maximum(moved, 1.0)) ** 2)
    compute = p["compute"] * flops / peak / busy ** p["idle"]
    memory = p["missed"] * moved * missed / d.memory_bytes_per_s
    # K is a chain of dependent multiply-adds of one tile: it takes clocks whatever the parallelism.
    cached = p["cache"] * moved / d.cache_bytes_per_s
    clock = d.issue_per_s / d.processors
    return np.asarray(
        (1e3 * p["launch"] + p["chain"] * k) / clock
        # Compute and both kinds of traffic overlap in part: between their largest and their sum.
        + np.sqrt(compute**2 + memory**2 + cached**2)
        + p["output"] * size * m * n / d.cache_bytes_per_s
    )


def _gemm_fp32(s: Shapes, d: DeviceFacts, p: Params) -> Floats:
    """The larger of multiply-adds at a share of peak and operands at a share of bandwidth."""
    m, n, k, size = s.rows, s.width, s.inner, s.element_bytes
    compute = p["compute"] * 2.0 * m * n * k / d.fp32_flops_per_s
    memory = p["missed"] * size * (m * k + k * n + m * n) / d.memory_bytes_per_s
    return np.asarray(np.maximum(compute, memory))


def _gather(s: Shapes, d: DeviceFacts, p: Params) -> Floats:
    """Rows read in sectors of 32 B, from cache where the table fits, and written one after another.

    Half of a write's cost is not hidden behind reads that hit the cache.
    """
    assert d.cache_bytes_per_s is not None
    size = s.width * s.element_bytes
    # Memory delivers sectors of 32 bytes, of which a narrow row uses a part.
    read, written = s.rows * np.ceil(size / 32.0) * 32.0, s.rows * size
    table = s.columns * size
    hit = _hit_rate(table, d.cache_bytes, np.ones(len(s)), 0.75 * np.ones(len(s)))
    distinct = np.minimum(read, table)
    missed = distinct + (read - distinct) * (1.0 - hit)
    return np.asarray(
        p["moved"] * (missed + written) / d.memory_bytes_per_s
        + (read - missed) / d.cache_bytes_per_s
    )


def _stream(s: Shapes, d: DeviceFacts, p: Params) -> Floats:
    """`rows` bytes read or written in order."""
    rate = d.stream_bytes_per_s or p["share"] * d.memory_bytes_per_s
    return np.asarray(s.rows / rate)


_SPMM_START = {
    "launch": 7.3,
    "cache": 0.89,
    "output": 1.34,
    "pattern": 2.6,
    "missed": 1.0,
    "locality": 0.35,
    "cache_share": 2.0,
    "held": 0.7,
}
_SPMM_SPREAD = {
    "held": 0.7,
    "launch": 0.5,
    "cache": 0.5,
    "output": 0.8,
    "pattern": 0.8,
    "missed": 0.5,
    "locality": 0.5,
    "cache_share": 0.7,
    "longest": 1.5,
    "chain": 1.5,
    "chain_width": 0.7,
    "row": 1.5,
    "entry": 1.5,
}
_CUSPARSE_START = {**_SPMM_START, "longest": 0.05, "row": 8.0}
_BY_ROW_START = {**_SPMM_START, "chain": 0.6, "chain_width": 0.4}
_SPLIT_START = {**_BY_ROW_START, "chain": 0.05}
"""Of kernels that divide long rows."""
_CACHE = ("cache_bytes_per_s",)
_CACHE_AND_LATENCY = (*_CACHE, "cache_latency_s", "memory_latency_s")
_CACHE_AND_LAUNCH = (*_CACHE, "launch_s")
_SDDMM_START = {
    "launch": 3.0,
    "entry": 16.0,
    "line": 4.0,
    "row": 30.0,
    "cache": 0.3,
    "missed": 0.4,
    "pattern": 1.0,
    "locality": 0.4,
    "cache_share": 2.0,
}
_SDDMM_SPREAD = {
    "launch": 0.8,
    "entry": 2.0,
    "line": 2.0,
    "row": 2.0,
    "cache": 0.8,
    "missed": 0.8,
    "pattern": 0.7,
    "locality": 0.5,
    "cache_share": 0.7,
}
_GEMM_START = {
    "launch": 5.5,
    "chain": 1.5,
    "compute": 1.5,
    "missed": 1.0,
    "output": 0.5,
    "cache": 0.5,
    "idle": 0.3,
    "cache_share": 1.0,
}

_KERNELS = (
    Kernel(
        name="cusparse",
        operation="spmm",
        seconds=_spmm_tiled,
        start=_CUSPARSE_START,
        spread=_SPMM_SPREAD,
        known=_CACHE,
    ),
    *(
        Kernel(
            name=name,
            operation="spmm",
            seconds=_spmm_by_row,
            start={**_SPLIT_START, "entry": 4.0} if name == "rode" else _BY_ROW_START,
            spread=_SPMM_SPREAD,
            known=_CACHE_AND_LATENCY,
            draw=2.0 if name == "rode" else 0.3,
            device_draw=0.3 if name == "rode" else 0.1,
        )
        for name in ("naive_csr", "csr_direct", "rb_sr", "rode", "aspt", "sputnik")
    ),
    *(
        Kernel(
            name=f"{name}_sddmm",
            operation="sddmm",
            seconds=_sddmm,
            start=_SDDMM_START,
            spread=_SDDMM_SPREAD,
            known=_CACHE_AND_LAUNCH,
            draw=3.0,
            device_draw=0.1,
        )
        for name in ("rode", "aspt", "cusddmm")
    ),
    Kernel(
        name="gemm",
        operation="gemm",
        seconds=_gemm,
        start=_GEMM_START,
        spread=dict.fromkeys(_GEMM_START, 1.5),
        known=(*_CACHE, "bf16_flops_per_s"),
        draw=0.15,
        device_draw=0.1,
    ),
    Kernel(
        name="gemm_fp32",
        operation="gemm",
        seconds=_gemm_fp32,
        start={"compute": 1.4, "missed": 1.8},
        spread={"compute": 0.5, "missed": 0.5},
        known=("memory_bytes_per_s",),
    ),
    Kernel(
        name="stream",
        operation="elementwise",
        seconds=_stream,
        start={"share": 0.9},
        spread={"share": 0.1},
        known=("memory_bytes_per_s",),
    ),
    Kernel(
        name="gather",
        operation="gather",
        seconds=_gather,
        start={"moved": 1.4},
        spread={"moved": 0.5},
        known=_CACHE,
    ),
)
KERNELS: Mapping[str, Kernel] = {kernel.name: kernel for kernel in _KERNELS}
