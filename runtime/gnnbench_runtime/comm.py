"""Comm: the only caller of collectives. Each is recorded with kind, lane, phase, group and bytes.

Bytes are what this rank sends to other ranks of the group (P ranks, own block excluded), the same
for NCCL and gloo whatever algorithm they choose:

    all_reduce       floor(2 (P-1) S / P), S the buffer: the ring volume (work.all_reduce_bytes)
    all_to_all       the rows sent to others, times the bytes of a row
    all_gather       (P-1) S, S the own block
    reduce_scatter   (P-1) S, S the own block of the result
    broadcast        (P-1) S on the root, 0 elsewhere
    send, recv       S, 0
    barrier          0

A group of one rank communicates nothing: no collective is called and nothing is recorded.

Lane `comm` is the main group. `background` and `background:1` are further groups of the same ranks,
whose transfers never queue behind those of `comm`; all ranks open one together (`open_background`),
and one thread or the `_async` methods use it. Each lane has a thread for the latter; who uses them
on `comm` waits before calling another collective there. Calls match by their order within a lane.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import torch.distributed as dist

from gnnbench.errors import Unsupported
from gnnbench.steps import Kind, Lane, Work
from gnnbench.work import all_reduce_bytes
from gnnbench_runtime.peers import guarded
from gnnbench_runtime.pending import Pending
from gnnbench_runtime.recorder import Recorder, Span

_REDUCTIONS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}
# Renamed in torch 2.13, which warns of the older names.
_ALL_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_REDUCE_SCATTER = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
_OF_DEVICES = ("nccl", "fake")
"""Backends that reach tensors of devices; "fake" is torch's own, which moves nothing."""


class Comm:
    """The collectives of one rank within one group of ranks.

    `rank` and `world_size` count within the group. With `staged`, CUDA tensors travel through host
    memory (gloo without NCCL); without it, giving CUDA tensors to gloo is an error. The process
    group is set up before, unless world_size is 1.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
        staged: bool = False,
        ranks: Sequence[int] | None = None,
        group: Any = None,
    ) -> None:
        self.rank, self.world_size = rank, world_size
        self.device = device or torch.device("cpu")
        self.ranks = tuple(range(world_size)) if ranks is None else tuple(ranks)
        self._recorder = recorder
        self._staged = staged
        self._groups: dict[str, Any] = {Lane.COMM: group}
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._streams: dict[str, Any] = {}

    # --- collectives ------------------------------------------------------------------------

    def all_reduce(
        self,
        tensor: torch.Tensor,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "all_reduce",
        lane: Lane = Lane.COMM,
        reduce: str = "sum",
    ) -> None:
        """Reduce the tensor over all ranks, in place."""
        self._now(self._all_reduce(tensor, name, phase, layer, op, lane, reduce))

    def all_reduce_async(
        self,
        tensor: torch.Tensor,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "all_reduce",
        lane: Lane = Lane.BACKGROUND,
        reduce: str = "sum",
    ) -> Pending:
        """Begin to reduce in place; the tensor is not touched until `wait`."""
        return self._later(self._all_reduce(tensor, name, phase, layer, op, lane, reduce))

    def all_to_all(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        output_splits: Sequence[int] | None,
        input_splits: Sequence[int] | None,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "all_to_all",
        lane: Lane = Lane.COMM,
    ) -> None:
        """Send rows to each rank and receive rows from each; splits count rows, None is equal."""
        splits = (output_splits, input_splits)
        self._now(self._all_to_all(output, input, splits, name, phase, layer, op, lane))

    def all_to_all_async(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        output_splits: Sequence[int] | None,
        input_splits: Sequence[int] | None,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "all_to_all",
        lane: Lane = Lane.BACKGROUND,
    ) -> Pending:
        """Begin an all-to-all; neither tensor is touched until `wait`."""
        splits = (output_splits, input_splits)
        return self._later(self._all_to_all(output, input, splits, name, phase, layer, op, lane))

    def all_gather(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "all_gather",
        lane: Lane = Lane.COMM,
    ) -> None:
        """Put the ranks' blocks one after another into `output`. All blocks have one shape."""
        self._now(self._all_gather(output, input, name, phase, layer, op, lane))

    def all_gather_async(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "all_gather",
        lane: Lane = Lane.BACKGROUND,
    ) -> Pending:
        """Begin an all-gather; neither tensor is touched until `wait`."""
        return self._later(self._all_gather(output, input, name, phase, layer, op, lane))

    def reduce_scatter(
        self,
        output: torch.Tensor,
        input: torch.Tensor,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "reduce_scatter",
        lane: Lane = Lane.COMM,
    ) -> None:
        """Sum the ranks' inputs and leave block `rank` of the sum in `output`."""
        # Alone, a reduction of one input is a copy; no step is recorded, because none is planned.
        if self.world_size == 1:
            output.copy_(input.view(output.shape))
        sent = (self.world_size - 1) * _bytes(output)
        call = _REDUCE_SCATTER
        work = self._work(lane, call, (_flat(output),), (_flat(input),), outputs=(_flat(output),))
        self._now((Kind.REDUCE_SCATTER, work, name, phase, layer, op, lane, sent))

    def broadcast(
        self,
        tensor: torch.Tensor,
        root: int,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "broadcast",
        lane: Lane = Lane.COMM,
    ) -> None:
        """Overwrite the tensor with that of `root` (counted within the group)."""
        # torch counts roots within the whole world, this class within its group.
        source = self.ranks[root]

        def call(buffer: torch.Tensor, *, group: Any) -> None:
            dist.broadcast(buffer, source, group=group)

        # The root alone sends: counting the receivers too would multiply the volume by the group's
        # size.
        sent = (self.world_size - 1) * _bytes(tensor) if self.rank == root else 0
        work = self._work(lane, call, (tensor,), (), outputs=(tensor,))
        self._now((Kind.BROADCAST, work, name, phase, layer, op, lane, sent))

    def send(
        self,
        tensor: torch.Tensor,
        peer: int,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "send",
        lane: Lane = Lane.COMM,
    ) -> None:
        """Send the tensor to a rank of the group, which receives it."""
        self._now(self._send(tensor, peer, name, phase, layer, op, lane))

    def send_async(
        self,
        tensor: torch.Tensor,
        peer: int,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "send",
        lane: Lane = Lane.BACKGROUND,
    ) -> Pending:
        """Begin to send; the tensor does not change until `wait`."""
        return self._later(self._send(tensor, peer, name, phase, layer, op, lane))

    def recv(
        self,
        tensor: torch.Tensor,
        peer: int,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "recv",
        lane: Lane = Lane.COMM,
    ) -> None:
        """Receive into the tensor from one rank of the group."""

        def call(buffer: torch.Tensor, *, group: Any) -> None:
            dist.recv(buffer, self.ranks[peer], group=group)

        work = self._work(lane, call, (tensor,), (), outputs=(tensor,))
        self._now((Kind.RECV, work, name, phase, layer, op, lane, 0))

    def barrier(
        self,
        name: str,
        phase: str,
        *,
        layer: int = -1,
        op: str = "barrier",
        lane: Lane = Lane.COMM,
    ) -> None:
        """Wait until every rank is here; on CUDA, the device waits."""
        self._now((Kind.BARRIER, lambda: self._meet(lane), name, phase, layer, op, lane, 0))

    # --- groups -----------------------------------------------------------------------------

    def open_background(self, lane: Lane = Lane.BACKGROUND) -> None:
        """Make the group of a lane. Every rank calls this at the same place, or none does."""
        if self.world_size == 1 or lane in self._groups:
            return
        self._groups[lane] = dist.new_group(list(self.ranks))

    def on_host(self) -> Comm:
        """Return a Comm of the same ranks for tensors in host memory; itself where they all are.

        Every rank calls this at the same place, or none does.
        """
        if self.world_size == 1 or self.device.type == "cpu":
            return self
        return Comm(
            self._recorder,
            rank=self.rank,
            world_size=self.world_size,
            device=torch.device("cpu"),
            ranks=self.ranks,
            group=dist.new_group(list(self.ranks), backend="gloo"),
        )

    def split(self, groups: Sequence[Sequence[int]], *, background: bool = False) -> Comm:
        """Return this rank's Comm among disjoint groups that cover all ranks (an axis of a grid).

        Every rank calls this with the same groups, whose ranks count within this group.
        `background` opens that lane of each: ranks of other groups may never ask for it.
        """
        # Every rank makes every group, its own or not: `new_group` is collective over the world.
        mine: Comm | None = None
        for members in groups:
            ranks = [self.ranks[member] for member in members]
            group = dist.new_group(ranks) if len(ranks) > 1 else None
            behind = dist.new_group(ranks) if background and len(ranks) > 1 else None
            if self.rank in members:
                mine = Comm(
                    self._recorder,
                    rank=list(members).index(self.rank),
                    world_size=len(ranks),
                    device=self.device,
                    staged=self._staged,
                    ranks=ranks,
                    group=group,
                )
                if behind is not None:
                    mine._groups[Lane.BACKGROUND] = behind
        if mine is None:
            raise ValueError(f"rank {self.rank} is in none of the groups {groups}")
        return mine

    def close(self) -> None:
        """Stop the background threads."""
        for thread in self._threads.values():
            thread.shutdown(wait=True, cancel_futures=True)

    # --- for the harness: not part of any plan, so not recorded ------------------------------

    def sync(self) -> None:
        """Wait until every rank is here and the device is idle."""
        if self.world_size > 1:
            self._harness("harness barrier", lambda: self._meet(Lane.COMM))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def exchange(self, content: object) -> list[Any]:
        """Return every rank's JSON content, in rank order."""
        if self.world_size == 1:
            return [json.loads(json.dumps(content))]
        text = torch.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)
        # NCCL moves device tensors only; gloo moves host tensors.
        device = self.device if dist.get_backend(self._groups[Lane.COMM]) == "nccl" else "cpu"

        def gather(own: torch.Tensor) -> torch.Tensor:
            every = torch.empty(self.world_size * len(own), dtype=own.dtype, device=device)
            group = self._groups[Lane.COMM]
            self._harness(
                "harness exchange", lambda: _ALL_GATHER(every, own.to(device), group=group)
            )
            return every.cpu().view(self.world_size, -1)

        # Texts differ in length, but all-gather needs equal blocks: lengths are exchanged first.
        lengths = gather(torch.tensor([len(text)])).flatten().tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(text)] = text
        rows = gather(padded)
        return [
            json.loads(bytes(row[:size].tolist())) for row, size in zip(rows, lengths, strict=True)
        ]

    def _harness(self, name: str, work: Callable[[], object]) -> None:
        # The pulse tells the watchdog that this rank waits for others and does not hang itself.
        self._recorder.pulse.beat(name, "", True)
        guarded(work)
        self._recorder.pulse.leave()

    # --- how ---------------------------------------------------------------------------------

    def _send(self, tensor, peer, name, phase, layer, op, lane):
        def call(buffer: torch.Tensor, *, group: Any) -> None:
            dist.send(buffer, self.ranks[peer], group=group)

        work = self._work(lane, call, (tensor,), (), outputs=())
        return (Kind.SEND, work, name, phase, layer, op, lane, _bytes(tensor))

    def _all_reduce(self, tensor, name, phase, layer, op, lane, reduce):
        def call(buffer: torch.Tensor, *, group: Any) -> None:
            dist.all_reduce(buffer, _REDUCTIONS[reduce], group=group)

        sent = all_reduce_bytes(_bytes(tensor), self.world_size)
        work = self._work(lane, call, (tensor,), (), outputs=(tensor,))
        return (Kind.ALL_REDUCE, work, name, phase, layer, op, lane, sent)

    def _all_to_all(self, output, input, splits, name, phase, layer, op, lane):
        output_splits, input_splits = (None if s is None else list(s) for s in splits)
        sides = ("output", output, output_splits), ("input", input, input_splits)
        for what, buffer, split in sides:
            # A wrong split would end as a hang or as garbage on another rank; here the name of the
            # step is known.
            if split is not None and sum(split) != len(buffer):
                raise ValueError(f"{name}: {what} splits {split} of a buffer of {len(buffer)} rows")
        if self.world_size == 1:
            output.copy_(input)
        rows = len(input)
        own = rows // self.world_size if input_splits is None else input_splits[self.rank]
        sent = (rows - own) * (_bytes(input) // rows if rows else 0)

        def call(output: torch.Tensor, input: torch.Tensor, *, group: Any) -> None:
            dist.all_to_all_single(output, input, output_splits, input_splits, group=group)

        work = self._work(lane, call, (output,), (input,), outputs=(output,))
        return (Kind.ALL_TO_ALL, work, name, phase, layer, op, lane, sent)

    def _all_gather(self, output, input, name, phase, layer, op, lane):
        if self.world_size == 1:
            output.copy_(input.view(output.shape))
        sent = (self.world_size - 1) * _bytes(input)
        call = _ALL_GATHER
        work = self._work(lane, call, (_flat(output),), (_flat(input),), outputs=(_flat(output),))
        return (Kind.ALL_GATHER, work, name, phase, layer, op, lane, sent)

    def _work(self, lane, call, targets, sources, outputs) -> Callable[[], None]:
        """Bind a collective to its lane's group, through host memory where that is asked for."""

        def work() -> None:
            tensors = (*targets, *sources)
            group = self._group(lane)
            if self.device.type == "cpu" or dist.get_backend(group) in _OF_DEVICES:
                call(*tensors, group=group)
                return
            if not self._staged:
                raise Unsupported(
                    "gloo cannot reach CUDA tensors: use NCCL, or backend gloo_staged"
                )
            staged = [tensor.cpu() for tensor in tensors]
            call(*staged, group=group)
            for tensor, host in zip(outputs, staged, strict=False):
                tensor.copy_(host)

        return work

    def _group(self, lane: str) -> Any:
        if lane not in self._groups:
            raise RuntimeError(f"lane {lane!r} has no group: call comm.open_background() first")
        return self._groups[lane]

    def _meet(self, lane: str) -> None:
        group = self._group(lane)
        # Without device_ids, NCCL's barrier uses device 0.
        ids = [self.device.index or 0] if dist.get_backend(group) == "nccl" else None
        dist.barrier(group=group, device_ids=ids)

    def _span(self, kind, name, phase, layer, op, lane, sent) -> Span:
        return self._recorder.step(
            name,
            Work(kind=kind, op=op, bytes=sent),
            phase=phase,
            lane=lane,
            layer=layer,
            group_size=self.world_size,
            collective=True,
        )

    def _now(self, task) -> None:
        kind, work, *where = task
        if self.world_size > 1:
            with self._span(kind, *where):
                guarded(work)

    def _later(self, task) -> Pending:
        """Run the work asynchronously: on CPU in the lane's thread, on CUDA on its stream.

        It is timed where it runs, so that its span in the ledger is its own and not the caller's
        wait.
        """
        kind, work, *where = task
        if self.world_size == 1:
            return Pending()
        lane = where[-2]
        if self.device.type == "cuda" and not self._staged:
            self._group(lane)  # says so if the lane was never opened
            if lane not in self._streams:
                self._streams[lane] = torch.cuda.Stream(self.device)
            stream = self._streams[lane]
            # The collective may not start before the kernels that made its input have ended.
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                with self._span(kind, *where):
                    guarded(work)
                event = stream.record_event()
            return Pending(event=event, device=self.device)
        span = self._span(kind, *where)
        if lane not in self._threads:
            self._threads[lane] = ThreadPoolExecutor(1, thread_name_prefix=f"{lane}")

        def run() -> None:
            with span:
                guarded(work)

        return Pending(future=self._threads[lane].submit(run))


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """View as one dimension: gloo insists that blocks and whole have shapes that fit."""
    return tensor.view(-1)
