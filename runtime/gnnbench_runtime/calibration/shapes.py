"""Products, sparse products and row copies at shapes spread over all that plans can ask for.

Training probes have the shapes that go together in a layer of an affordable graph. Bags of words of
thousands of columns, millions of rows and narrow outputs lie beyond; there a call takes
milliseconds, and what ran before it no longer matters, so that it can be timed by itself.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from gnnbench import work
from gnnbench.data.halo import transpose
from gnnbench.data.reuse import counted_reuse
from gnnbench.reuse import Reuse
from gnnbench.steps import Work
from gnnbench_runtime.comm import Comm
from gnnbench_runtime.probe import speed_probe

ROWS, INPUTS, OUTPUTS = (16, 1_000_000), (8, 8192), (2, 512)
"""Rows of a matrix, and columns of both sides of a layer: ranges, spread in the logarithm."""
TABLE_ROWS = (1_000, 1_000_000)
ELEMENTS = 16_000_000  # of the largest operand: 64 MB, beyond the caches of a core
FLOPS = 1.2e9  # of a product: some ten milliseconds on a core
ENTRIES, BAND = 2_000_000, 64
"""Most entries of a sparse product, and the rows within which near reads lie."""
HEADS, VALUES = (1, 2, 4, 8), 8_000_000
"""Heads of attention, and most entries times width of its sums."""
CALLS = 3
GRAPH = "shapes"
"""The kind of graph of these samples."""
PROBE_EVERY = 8  # shapes from one speed probe to the next
_RATIO = 1.2207440846057596  # root of x**4 = x + 1: fills a box of three dimensions evenly


def spread(count: int, first: int = 0) -> Iterator[tuple[int, int, int]]:
    """Sizes (rows, inputs, outputs) of layers, within the limits of elements and flops.

    What is too large is cut: by turns the rows, so that wide layers remain, or the columns, so that
    tall ones do.
    """
    for index in range(first, first + count):
        # Powers of the inverse root fill the box evenly for any count (an R-sequence), so that
        # turns continue each other instead of repeating sizes.
        at = [(0.5 + (index + 1) / _RATIO ** (k + 1)) % 1.0 for k in range(3)]
        ranges = ROWS, INPUTS, OUTPUTS
        rows, inputs, outputs = (
            round(low * (high / low) ** place)
            for (low, high), place in zip(ranges, at, strict=True)
        )
        if index % 2:
            inputs, outputs = (min(width, ELEMENTS // rows) for width in (inputs, outputs))
            # Cut by flops too: one product may not take the time of all others.
            inputs = min(inputs, max(INPUTS[0], int(FLOPS / (2 * rows * outputs))))
        rows = min(rows, ELEMENTS // max(inputs, outputs), int(FLOPS / (2 * inputs * outputs)))
        yield max(rows, ROWS[0]), inputs, outputs


class Shapes:
    """The calls of one rank. Operands are views of two buffers, so that none is drawn anew.

    Args:
        device: of the rank.
        kernels: that copy rows.
    """

    def __init__(self, device: torch.device, kernels: Any) -> None:
        self.device, self.kernels = device, kernels
        self._buffers = [torch.ones(ELEMENTS, device=device) for _ in range(2)]
        self._small = torch.ones(INPUTS[1] * OUTPUTS[1], device=device)

    def of(
        self, rows: int, inputs: int, outputs: int
    ) -> Iterator[tuple[Work, Callable[[], object]]]:
        """Every operation of a layer of these sizes, as the runtime's models call it."""
        x, weight = self._view(0, rows, inputs), self._weight(inputs, outputs)
        # A view of a buffer: drawing new operands would take longer than the calls that are timed.
        y, bias = self._view(1, rows, outputs), self._small[:outputs]
        s, size = 4, (rows, inputs, outputs)
        back, turned = (rows, outputs, inputs), (inputs, rows, outputs)
        yield work.gemm("gemm_nn", *size, s), lambda: torch.mm(x, weight, out=y)
        yield work.gemm("gemm_nn_bias", *size, s), lambda: torch.addmm(bias, x, weight, out=y)
        yield work.gemm("gemm_nn_add", *size, s), lambda: y.addmm_(x, weight)
        yield work.gemm("gemm_tn", *turned, s), lambda: torch.mm(x.t(), y, out=weight)
        yield work.gemm("gemm_nt", *back, s), lambda: torch.mm(y, weight.t(), out=x)
        yield work.gemm("gemm_nt_add", *back, s), lambda: x.addmm_(y, weight.t())
        yield from self._rows(rows, inputs, outputs)
        yield from self._sparse(rows, inputs, outputs)
        yield from self._attention(rows, inputs, outputs, HEADS[inputs % len(HEADS)])

    def _rows(
        self, rows: int, width: int, place: int
    ) -> Iterator[tuple[Work, Callable[[], object]]]:
        """Rows copied from a table in random order, and added to one."""
        low, high = TABLE_ROWS
        # The place of the width also chooses the size of the table, so that both vary without a
        # fourth dimension.
        share = (place / OUTPUTS[1]) ** 0.5
        sources = max(2, min(round(low * (high / low) ** share), ELEMENTS // width))
        rows = min(rows, ELEMENTS // width)
        table, out = self._view(0, sources, width), self._view(1, rows, width)
        # Fresh ids for every call: the rows of the call before lie in the cache, and a table larger
        # than the cache would be timed as if it fitted.
        anywhere = [torch.randint(0, sources, (rows,)) for _ in range(CALLS + 1)]
        yield from self._copies(table, out, anywhere, None)
        # Rising ids, as of the rows that a rank sends: the processor fetches them ahead.
        few = min(rows, sources)
        rising = [torch.randperm(sources)[:few].sort().values for _ in range(CALLS + 1)]
        yield from self._copies(table, out[:few], rising, Reuse.in_turn(few))

    def _copies(
        self, table: Tensor, out: Tensor, drawn: list[Tensor], reuse: Reuse | None
    ) -> Iterator[tuple[Work, Callable[[], object]]]:
        ids = itertools.cycle([one.to(self.device) for one in drawn])
        (sources, width), rows, s = table.shape, len(out), table.element_size()
        yield (
            work.gather(rows, width, sources, s, reuse=reuse),
            lambda: self.kernels.gather_rows(table, next(ids), out),
        )
        yield (
            work.scatter_add(rows, width, sources, s, reuse=reuse),
            lambda: self.kernels.scatter_add_rows(table, next(ids), out),
        )

    def _sparse(
        self, place: int, spot: int, width: int
    ) -> Iterator[tuple[Work, Callable[[], object]]]:
        """A product whose reads are near, and one of the same size whose reads are far.

        Entries of the first lie within a band of some rows around the diagonal, those of the other
        anywhere.
        """
        rows = max(256, min(place, ELEMENTS // width))
        # Degrees from 2 to 64 do not depend on the number of rows; the cap bounds the time of a
        # call.
        degree = max(2, min(2 + spot % 63, ENTRIES // rows))
        indptr = torch.arange(0, rows * degree + 1, degree, dtype=torch.int64)
        x, out = self._view(0, rows, width), self._view(1, rows, width)
        scale = self._small[:rows]
        for indices, reuse in _columns(indptr):
            done = work.spmm(
                rows=rows,
                nonzeros=rows * degree,
                width=width,
                source_rows=rows,
                element_bytes=x.element_size(),
                reuse=reuse,
            )
            starts, columns = indptr.to(self.device), indices.to(self.device)
            yield (
                done,
                partial(
                    self.kernels.spmm,
                    starts,
                    columns,
                    x,
                    out,
                    row_scale=scale,
                    col_scale=scale,
                    self_scale=scale,
                ),
            )

    def _attention(
        self, place: int, spot: int, width: int, heads: int
    ) -> Iterator[tuple[Work, Callable[[], object]]]:
        """The sparse products of attention, with near reads and with far ones."""
        # Whole heads only.
        width = max(width // heads, 1) * heads
        rows = max(256, min(place, ELEMENTS // width, VALUES // (4 * width)))
        degree = max(2, min(2 + spot % 63, VALUES // (rows * width)))
        indptr = torch.arange(0, rows * degree + 1, degree, dtype=torch.int64)
        x, out = self._view(0, rows, width), self._view(1, rows, width)
        weights = torch.ones(rows * degree, heads, device=self.device)
        for indices, reuse in _columns(indptr):
            turned = [
                torch.from_numpy(part).to(self.device)
                for part in transpose(indptr.numpy(), indices.numpy(), rows)
            ]
            plain = indptr.to(self.device), indices.to(self.device)
            sizes: dict[str, Any] = {
                "rows": rows,
                "nonzeros": rows * degree,
                "width": width,
                "heads": heads,
                "source_rows": rows,
                "element_bytes": x.element_size(),
                "reuse": reuse,
            }
            sums = self.kernels.spmm_heads
            yield work.spmm_weighted(**sizes), partial(sums, *plain, weights, x, out)
            yield (
                work.spmm_weighted(**sizes, transpose=True),
                partial(sums, *turned[:2], weights, x, out, turned[2]),
            )
            yield (
                work.sddmm_dot(**sizes),
                partial(self.kernels.sddmm_dot, *plain, x, out, weights),
            )

    def _view(self, buffer: int, rows: int, width: int) -> Tensor:
        return self._buffers[buffer][: rows * width].view(rows, width)

    def _weight(self, inputs: int, outputs: int) -> Tensor:
        return self._small[: inputs * outputs].view(inputs, outputs)

    def reset(self) -> None:
        """Put ones everywhere: sums of sums overflow after some calls, and infinities are slow."""
        for buffer in (*self._buffers, self._small):
            buffer.fill_(1.0)


def _columns(indptr: Tensor) -> Iterator[tuple[Tensor, Reuse]]:
    """Columns of rows of equal length: within a band around the diagonal, then anywhere."""
    rows, degree = len(indptr) - 1, int(indptr[1])
    for band in (min(BAND, rows), rows):
        # Half of the band to each side; the other half of the samples reads anywhere.
        steps = torch.randint(-band // 2, band // 2 + 1, (rows, degree))
        found = torch.remainder(torch.arange(rows)[:, None] + steps, rows)
        # Rows are sorted as those of a graph are, so that reads rise within a row.
        indices = found.sort(dim=1).values.flatten().to(torch.int32)
        yield indices, counted_reuse(indptr.numpy(), indices.numpy())


def sweep_shapes(
    device: torch.device,
    kernels: Any,
    peers: Comm,
    *,
    count: int,
    first: int = 0,
    workload: int = 0,
    needed: frozenset[str] = frozenset(),
) -> list[dict[str, Any]]:
    """Time every operation at `count` sizes; samples as `rank.keep_samples` makes them.

    Args:
        device, kernels: of the rank.
        peers: ranks of the host, which sweep at the same time.
        count: sizes.
        first: number of the first size: turns of a calibration take different ones.
        workload: number of the workload before.
        needed: operations that are timed; all if empty.
    """
    shapes, samples = Shapes(device, kernels), []
    probe_s = speed_probe(device)
    for number, sizes in enumerate(spread(count, first)):
        if number % PROBE_EVERY == 0:
            peers.sync()
            probe_s = speed_probe(device)
            peers.sync()
        # Peers probe together: a probe beside another rank's kernel would measure the contention,
        # not the speed.
        shapes.reset()
        for done, call in shapes.of(*sizes):
            # Only operations that the chosen approaches need are timed.
            if needed and done.op not in needed:
                continue
            samples.append(
                {
                    "op": done.op,
                    "kind": done.kind.value,
                    "probes": _seconds(device, call) / probe_s,
                    "gap_probes": 0.0,
                    "workload": workload + number + 1,
                    "graph": GRAPH,
                    **{fact: getattr(done, fact) for fact in _FACTS},
                    **({} if done.reuse is None else {"reuse": done.reuse.shares.tolist()}),
                }
            )
    return samples


_FACTS = ("rows", "nonzeros", "width", "inner", "source_rows", "bytes", "flops")


def _seconds(device: torch.device, call: Callable[[], object]) -> float:
    """The median of some calls after one that is not timed."""
    times = []
    for _ in itertools.repeat(None, CALLS + 1):
        begin = perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(perf_counter() - begin)
    return statistics.median(times[1:])
