"""Pages of the approaches, written from their cards and from the plans of their examples.

Numbers are integers from the plan writer on a run of the card's examples: what ranks send, and what
a rank holds. They are the numbers that the runtime must count.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from page import code, facts, inline, link, prose, size, table, toml
from plan_drawing import MOST_STEPS, draw, legend

from gnnbench.approaches.base import Approach, Layout
from gnnbench.approaches.card import Accepts, Promise
from gnnbench.approaches.names import APPROACHES
from gnnbench.commands.info import knobs
from gnnbench.data.source import Library
from gnnbench.errors import GnnbenchError
from gnnbench.iterations import RankSteps
from gnnbench.plan import Plan
from gnnbench.spec import RunSpec
from gnnbench.steps import COMMUNICATION, Space

_RANKS = (1, 2, 4, 8)
_MOST_BUFFERS = 14
_SENT = frozenset(kind.value for kind in COMMUNICATION)
_FAMILIES = {
    "whole_graph": "Whole graph",
    "mini_batch": "Mini-batches",
    "out_of_core": "From the disk",
    "temporal": "Edge streams",
}


def pages() -> dict[str, str]:
    """One page per approach and an index, by path."""
    made = {"approaches/index.md": _index()}
    with tempfile.TemporaryDirectory(prefix="gnnbench-manual-") as folder:
        planner = Planner(Path(folder))
        for name in APPROACHES.names():
            made[f"approaches/{name}.md"] = approach_page(APPROACHES.get(name), planner)
    return made


def families() -> dict[str, list[str]]:
    """The names of approaches by the title of their family."""
    found: dict[str, list[str]] = {title: [] for title in _FAMILIES.values()}
    for name in APPROACHES.names():
        family = APPROACHES.get(name).family
        found.setdefault(_FAMILIES.get(family, family), []).append(name)
    return found


def _index() -> str:
    lines = [
        "# Approaches",
        "",
        "An approach is one way to train. Its promise states what its results owe to those of its",
        "reference: *exact*, *unbiased*, *stale* or *own*; [Concepts](../concepts.md#promise)",
        "explains the words. These pages are written from the cards of the approaches and from the",
        "plans of their examples. Labels such as FG-14 or SA-S9 name invariants; `git grep FG-14`",
        "finds the code and the tests of an invariant.",
        "",
    ]
    for title, names in families().items():
        rows = []
        for name in names:
            card = APPROACHES.get(name)
            rows.append(
                {
                    "approach": link(name, f"{name}.html"),
                    "promise": card.promise.kind,
                    "how it trains": inline(card.summary),
                    "paper": inline(card.paper),
                }
            )
        if rows:
            lines += [f"## {title}", "", table(rows), ""]
    return "\n".join(lines)


def approach_page(card: Approach, planner: Planner) -> str:
    """The page of one approach."""
    run = _example(card, planner)
    data, plan = planner.data(run), planner.plan(card, run)
    lines = [
        f"# {card.name}",
        "",
        f"<p><strong>{inline(card.title)}</strong>: {inline(card.summary)}.</p>",
        "",
        facts(_facts(card)),
        "",
        "## How it works",
        "",
        prose(explained(card)),
        "",
        *_drawn(card, run, data, plan),
        *_sends(card, run, planner, plan),
        *_holds(plan),
        *_knobs(card),
    ]
    return "\n".join([*lines, *_next(card)])


_SECTION = r"\d+(?:\.\d+)?"
_NOTES = re.compile(
    r"(?P<before>, |; )?\b(?:fullgraph|sampling|temporal|out-of-core) (?:reference )?sections?"
    rf"\s+{_SECTION}(?:(?:-|,\s+|\s+and\s+){_SECTION})*(?:\s\(`[^)]*\))?(?P<behind>,\s+)?"
)
"""References to notes of the authors that the manual does not have."""


def explained(card: Approach) -> str:
    """What the card's module says, without references to notes."""
    text = _NOTES.sub(
        lambda found: "; " if found["before"] and found["behind"] else "",
        sys.modules[type(card).__module__].__doc__ or "",
    )
    text = re.sub(r"\(\s*[,;]?\s*", "(", text).replace(" ()", "")
    return re.sub(r"Source:\s*[;,]?\s*", "Source: ", text).replace("Source: .", "").strip()


# -- the card ------------------------------------------------------------------------------------


def _facts(card: Approach) -> dict[str, str]:
    accepts, promise = card.accepts, card.promise
    return {
        "Paper": inline(card.paper),
        "Family": inline(_FAMILIES.get(card.family, card.family)),
        "Promise": f"<strong>{promise.kind}</strong>: {inline(promise.text)}",
        "Reference": _reference(card, promise),
        "Equal to it with": _limit(promise),
        "Datasets": ", ".join(code(kind) for kind in sorted(accepts.datasets)),
        "Tasks": ", ".join(code(kind) for kind in sorted(accepts.tasks)),
        "Models": _models(accepts),
    }


def _reference(card: Approach, promise: Promise) -> str:
    if promise.reference == card.name:
        return "itself on one rank"
    return link(promise.reference, f"{promise.reference}.html")


def _limit(promise: Promise) -> str:
    """The settings with which an approach equals its reference exactly."""
    if promise.limit is None:
        return ""
    words = [f"{key} = {value}" for key, value in promise.limit.items()]
    words += [f"[batch] {key} = {value}" for key, value in (promise.limit_batch or {}).items()]
    if promise.limit_ranks is not None:
        words.append(f"ranks = {promise.limit_ranks}")
    return ", ".join(code(word) for word in words)


def _models(accepts: Accepts) -> str:
    if accepts.models:
        return ", ".join(code(name) for name in sorted(accepts.models))
    words = ["stacks of layers"]
    if not accepts.attention:
        words.append(f"without attention ({inline(accepts.no_attention)})")
    if not accepts.norm:
        words.append(f"without normalised layers ({inline(accepts.no_norm)})")
    if accepts.embeddings:
        words.append("and tables of embeddings")
    return ", ".join(words)


def _knobs(card: Approach) -> list[str]:
    rows = [
        {
            "knob": code(knob["knob"]),
            "default": code(toml(knob["default"])),
            "allowed": inline(knob["allowed"]),
            "meaning": inline(knob["meaning"]),
        }
        for knob in knobs(card.knobs_type)
    ]
    return ["## Knobs", "", table(rows) if rows else "It has none.", ""]


def _next(card: Approach) -> list[str]:
    return [
        "## Commands",
        "",
        "```console",
        f"$ gnnbench info {card.name}       # this card in a terminal",
        f"$ gnnbench conform {card.name}    # test the promise, in both worlds",
        "```",
        "",
        f"Its files: `{_file(type(card).__module__)}` (card, knobs, plan) and "
        f"`{_file(card.runtime.partition(':')[0])}` (trainer).",
        "",
    ]


def _file(module: str) -> str:
    room = module.partition(".")[0]
    root = {"gnnbench_runtime": "runtime/"}.get(room, "")
    return f"{root}{module.replace('.', '/')}.py"


# -- the plan ------------------------------------------------------------------------------------


class Planner:
    """Plans of examples; datasets are opened and structures made once.

    Args:
        cache: folder for partitions and the like.
    """

    def __init__(self, cache: Path) -> None:
        self._library, self._cache = Library([]), cache

    def data(self, run: RunSpec) -> Any:
        """The dataset of a run."""
        return self._library.open(run.dataset)

    def plan(self, card: Approach, run: RunSpec) -> Plan:
        """The plan of a run on one host."""
        data = self.data(run)
        layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
        return card.plan(data, run, card.structure(data, run, self._cache), layout)


def _example(card: Approach, planner: Planner) -> RunSpec:
    """The first example on several ranks that uses two lanes, if there is one."""
    examples = sorted(card.examples(), key=lambda run: run.ranks == 1)
    alike = [run for run in examples if (run.ranks > 1) == (examples[0].ranks > 1)]
    lanes = ({step.lane for step in _middle(planner.plan(card, run))} for run in alike)
    return next((run for run, used in zip(alike, lanes, strict=True) if len(used) > 1), alike[0])


def _middle(plan: Plan) -> RankSteps:
    """The steps of rank 0 in the middle of the first period."""
    order = plan.scheduled(0)
    return plan.iterations[order[len(order) // 2]][0]


def _words(run: RunSpec, data: object) -> str:
    """The example in a sentence."""
    counted = {
        "num_nodes": "vertices",
        "num_entities": "entities",
        "num_edges": "stored edges",
        "num_triples": "facts",
    }
    known = [key for key in counted if hasattr(data, key)]
    sizes = [f"{getattr(data, key):,} {counted[key]}" for key in known]
    model, settings = run.model, [f"{key} = {value}" for key, value in run.knobs.items()]
    batch = f", batches of {run.batch.size}" if APPROACHES.get(run.approach).accepts.batch else ""
    layers = f"{model.layers} layer{'s' if model.layers > 1 else ''} of width {model.hidden}"
    ranks = f"{run.ranks} rank{'s' if run.ranks > 1 else ''}"
    words = f"`{model.kind}` with {layers}{batch}, {run.training.precision}, {ranks}"
    words += f" on a generated {getattr(data, 'kind', 'graph')} of {' and '.join(sizes)}"
    return words + (f"; knobs: {', '.join(f'`{one}`' for one in settings)}" if settings else "")


def _drawn(card: Approach, run: RunSpec, data: object, plan: Plan) -> list[str]:
    order = plan.scheduled(0)
    place = len(order) // 2
    steps = _middle(plan)
    which = f"iteration {place + 1} of {len(order)} of the first {plan.period}"
    label = f"Plan of {card.name}: {len(steps)} steps of rank 0 by lane"
    cut = ""
    if len(steps) > MOST_STEPS:
        cut = f" The first {MOST_STEPS} of {len(steps)} steps are drawn."
    return [
        "## Plan",
        "",
        f'<div class="plan">{draw(steps, label)}</div>',
        "",
        legend(steps),
        "",
        f"<p>Steps of rank 0 in {which}: one row per lane, colour by phase; framed steps are "
        "communication. Lines are waits between lanes; a triangle is a wait for an earlier "
        f"iteration. Widths are not durations. Point at a step for its bytes, flops and "
        f"waits.{cut}</p>",
        "",
        f"<p>Example: {inline(_words(run, data))}.</p>",
        "",
    ]


def _sends(card: Approach, run: RunSpec, planner: Planner, plan: Plan) -> list[str]:
    """Bytes of the example by kind and phase, and over rank counts."""
    rows = [
        {"step": code(kind), "phase": code(phase), "bytes": size(moved)}
        for (kind, phase), moved in sorted(plan.moved_bytes(0).items())
        if moved
    ]
    noun = plan.period
    lines = ["## What it sends and moves", ""]
    if rows:
        lines += [
            f"<p>Bytes of all ranks in the first {noun} of the example, as the plan states and the "
            "runtime counts them:</p>",
            "",
            table(rows, numbers=["bytes"]),
            "",
        ]
    else:
        nothing = f"In the first {noun} of the example no rank sends, copies, reads or writes."
        lines += [f"<p>{nothing}</p>", ""]
    return [*lines, *_over_ranks(card, run, planner, noun)]


def _over_ranks(card: Approach, run: RunSpec, planner: Planner, noun: str) -> list[str]:
    found = {n: _sent(card, dataclasses.replace(run, ranks=n), planner) for n in _RANKS}
    rows = [
        {
            "ranks": str(ranks),
            "sent by all ranks": size(sent),
            "per rank": size(round(sent / ranks)),
        }
        for ranks, sent in found.items()
        if isinstance(sent, int)
    ]
    refused: dict[str, list[str]] = {}
    for ranks, sent in found.items():
        if isinstance(sent, str):
            refused.setdefault(sent, []).append(str(ranks))
    refusals = [
        f"<p>Not on {', '.join(at)} ranks: {inline(why)}.</p>" for why, at in refused.items()
    ]
    return [
        f"<p>Bytes sent to other ranks per {noun}, the same example on other numbers of ranks:</p>",
        "",
        table(rows, numbers=["ranks", "sent by all ranks", "per rank"]),
        "",
        *refusals,
        "",
    ]


def _sent(card: Approach, run: RunSpec, planner: Planner) -> int | str:
    """Bytes sent in the first period, or the reason why there is no plan."""
    reason = card.cannot_run(run, planner.data(run))
    if reason is not None:
        return reason
    try:
        plan = planner.plan(card, run)
    except GnnbenchError as error:
        return str(error)
    return sum(moved for (kind, _), moved in plan.moved_bytes(0).items() if kind in _SENT)


def _holds(plan: Plan) -> list[str]:
    """The buffers of rank 0 by space; numbered ones are one line."""
    held: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for buffer in plan.resident:
        held[buffer.space.value, "always"][buffer.name] = int(
            np.broadcast_to(np.asarray(buffer.bytes), plan.world_size)[0]
        )
    for iteration in plan.of_period(0):
        for step in iteration[0]:
            for buffer in step.allocates:
                known = held[buffer.space.value, "while in use"]
                known[buffer.name] = max(known.get(buffer.name, 0), int(np.max(buffer.bytes)))
    rows = []
    for (space, when), buffers in held.items():
        merged = _merged(buffers)
        for name, total in sorted(merged.items(), key=lambda item: -item[1])[:_MOST_BUFFERS]:
            rows.append({"space": space, "buffer": code(name), "lives": when, "bytes": size(total)})
        left = sorted(merged.values())[:-_MOST_BUFFERS]
        if left:
            words = f"{len(left)} smaller ones"
            rows.append({"space": space, "buffer": words, "lives": when, "bytes": size(sum(left))})
    peaks = ", ".join(
        f"{size(int(plan.peak_bytes(space, periods=1)[0]))} bytes of {space.value}"
        for space in plan.spaces()
        if space != Space.DISK
    )
    lines = ["## What it holds", ""]
    if peaks:
        lines += [f"<p>Highest sum of living buffers of rank 0 in the example: {peaks}.</p>", ""]
    return [*lines, table(rows, numbers=["bytes"]), ""]


def _merged(buffers: Mapping[str, int]) -> dict[str, int]:
    """Sizes by name, with * for numbers in names."""
    merged: dict[str, int] = defaultdict(int)
    for name, total in buffers.items():
        merged[re.sub(r"\d+", "*", name)] += total
    return dict(merged)
