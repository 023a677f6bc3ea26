"""Advice on machines: what it recommends, what it rules out, and what its numbers are."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gnnbench.buffers import ACTIVATIONS, BUFFERS, FEATURES, category
from gnnbench.cluster import load_cluster
from gnnbench.data.profile import GraphProfile, load_profile, overridden
from gnnbench.machines import Machine, find_machines
from gnnbench.spec import DatasetRef, ModelSpec, RunSpec, TrainingSpec
from gnnbench_simulator import advice as module
from gnnbench_simulator.advice import advise
from gnnbench_simulator.choices import Advice, Question
from gnnbench_simulator.explanation import decisive, explanation
from gnnbench_simulator.memory import P_OUT_OF_MEMORY, out_of_memory
from gnnbench_simulator.session import predict_run

RUN = RunSpec(
    suite="advice",
    dataset=DatasetRef(name="products", profile="ogbn-products", kind="graph"),
    model=ModelSpec(name="sage", kind="sage", hidden=256, layers=3),
    training=TrainingSpec(),
    approach="single",
    ranks=1,
)
WIDE = 10_208
"""Features of a node with which those of ogbn-products take 100 GB."""
FEW = ("single", "partition", "cagnet-1d", "sampled")


def _wide() -> GraphProfile:
    found = overridden(load_profile("ogbn-products"), {"num_features": WIDE})
    assert isinstance(found, GraphProfile)
    return found


def _advise(*words: str, approaches: tuple[str, ...] = FEW, **asked: Any) -> Advice:
    return advise(Question(run=RUN, **asked), _wide(), find_machines(words), approaches)


@pytest.fixture(scope="module")
def answer() -> Advice:
    return _advise("8xp4de.24xlarge", "8xp4de.24xlarge:4", "8xt4", "1xh200")


def test_the_cheapest_machine_that_fits_is_recommended(answer: Advice) -> None:
    assert answer.best is not None
    assert (answer.best.machine.name, answer.best.run.approach) == ("1 x h200", "single")
    prices = [choice.usd for choice in answer.ranked]
    assert prices == sorted(prices, key=lambda usd: usd or 0.0)
    assert [choice.machine.name for choice in answer.ranked] == [
        *("1 x h200", "1 x p4de.24xlarge", "2 x p4de.24xlarge:4", "2 x g4dn.12xlarge")
    ]


def test_features_that_no_device_can_hold_are_offered_in_the_memory_of_the_host(
    answer: Advice,
) -> None:
    """100 GB on eight T4 of 15 GB: a host of four has 206 GB of memory, one of a single T4 17."""
    choice = next(c for c in answer.ranked if c.machine.name == "2 x g4dn.12xlarge")
    assert choice.approach == "sampled (host)"
    assert choice.memory["space"] == "host memory"
    features = choice.memory["buffers"]["host memory"]["features"]
    assert features == pytest.approx(4 * WIDE * 2_449_029 / 4, rel=1e-6)  # shared by four ranks


def test_price_and_total_are_those_of_the_epochs_asked_for(answer: Advice) -> None:
    best = answer.best
    assert best is not None
    assert best.total_s == pytest.approx(100 * best.period_s)
    assert best.usd == pytest.approx(4.0 * best.total_s / 3600)
    assert best.low_s < best.period_s < best.high_s


def test_a_choice_is_timed_as_predict_times_it(answer: Advice) -> None:
    choice = next(c for c in answer.ranked if c.machine.ranks == 8)
    record, _ = predict_run(
        choice.run, _wide(), choice.machine.cluster, ranks_per_host=choice.machine.per_host
    )
    assert record.period_s == pytest.approx(choice.period_s)
    assert max(m["judged_bytes"] for m in record.memory) == choice.memory["judged_bytes"]


def test_what_does_not_fit_is_ruled_out_with_what_it_lacks_and_a_size_that_fits(
    answer: Advice,
) -> None:
    names = {out.machine.name for out in answer.ruled_out}
    assert names == {"8 x g4dn.xlarge"}
    for out in answer.ruled_out:
        assert out.closest is not None
        assert out.closest.run.approach == "cagnet-1d"  # it holds the least of all
        assert 0 < out.closest.missing_bytes < 2**30
        assert "16 T4" in out.way_out
    assert [c.memory["fits"] for c in _advise("16xt4").ranked] == [True, True]


def test_epochs_of_other_numbers_of_optimiser_steps_are_told_apart(answer: Advice) -> None:
    assert answer.best is not None
    assert answer.unlike is not None
    assert answer.unlike.run.approach == "sampled"
    assert answer.best.steps_per_epoch == 1
    assert answer.unlike.steps_per_epoch == 193  # 196,615 training vertices in batches of 1,024


def test_every_approach_on_the_best_machine_has_an_interval(answer: Advice) -> None:
    """The slow ones as well: the widest may be theirs."""
    assert len(answer.approaches) > 1
    assert all(one.low_s < one.period_s < one.high_s for one in answer.approaches)


def test_a_deadline_is_met_by_the_end_of_the_interval(answer: Advice) -> None:
    assert answer.best is not None
    late = answer.best.total_s
    words = ("8xp4de.24xlarge", "1xh200")
    faster = _advise(*words, deadline_s=late).best  # met by the median alone
    assert faster is not None
    assert faster.machine.ranks == 8
    assert faster.high_s * faster.periods <= late
    hopeless = _advise(*words, deadline_s=1.0)
    assert hopeless.missed.startswith("no choice surely meets")
    assert hopeless.best is not None


def test_the_smallest_machine_is_of_fewest_devices_that_meet_the_limits() -> None:
    words = ("8xp4de.24xlarge", "64xp4de.24xlarge")
    small = _advise(*words, smallest=True, deadline_s=100.0).best
    large = _advise(*words, smallest=True, deadline_s=20.0).best
    assert small is not None
    assert large is not None
    assert (small.machine.ranks, large.machine.ranks) == (8, 64)


def test_a_budget_asks_for_the_fastest_machine_within_it() -> None:
    words = ("1xh200", "64xp4de.24xlarge")
    for budget, ranks in ((0.2, 1), (5.0, 64)):
        best = _advise(*words, budget_usd=budget).best
        assert best is not None
        assert best.machine.ranks == ranks


def test_variants_of_an_approach_are_tried() -> None:
    found = _advise("8xp4de.24xlarge", approaches=("sampled",))
    assert found.best is not None
    assert found.best.approach == "sampled (partitioned)"
    assert [choice.approach for choice in found.unfit] == ["sampled"]


def test_approaches_that_can_never_run_are_refused_with_their_reason() -> None:
    found = _advise("8xp4de.24xlarge", approaches=("single",))
    assert found.best is None
    assert found.refusals == {"single": "single runs on 1 rank, 8 asked"}


def test_memory_is_told_by_categories_that_sum_to_what_is_judged(answer: Advice) -> None:
    for choice in answer.ranked:
        space = choice.memory["space"]
        parts = choice.memory["categories"][space]
        assert sum(parts.values()) == choice.memory["judged_bytes"]
        # Features in a host's memory are shared by its ranks.
        ranks = choice.machine.per_host if space == "host memory" else choice.machine.ranks
        rows = 2_449_029 / ranks
        assert parts[FEATURES] >= 0.9 * 4 * WIDE * rows
        assert choice.out_of_memory <= P_OUT_OF_MEMORY


def test_the_chance_of_running_out_rises_as_room_shrinks() -> None:
    chances = [out_of_memory(10, 100, limit) for limit in (90, 110, 115, 130, 200)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.99
    assert 0.4 < out_of_memory(0, 100, 105.1) < 0.6  # measured workloads need 5 % more
    assert (out_of_memory(10, 0, 11), out_of_memory(10, 0, 9), out_of_memory(10, 5, 9)) == (0, 1, 1)


def test_a_name_is_classed_by_whether_it_stays() -> None:
    assert category("x", resident=True) == FEATURES
    assert category("x", resident=False) == ACTIVATIONS
    assert category("gn2", resident=False) == ACTIVATIONS
    assert category("halo_rows", resident=False) == BUFFERS


def test_an_explanation_has_the_whole_period_and_a_source_for_every_constant(
    answer: Advice,
) -> None:
    best = answer.best
    assert best is not None
    found = explanation(best)
    spent = sum(step.seconds for step in found["steps"]) + found["other_s"]
    assert spent == pytest.approx(best.period_s, rel=0.02)
    names = {basis.name for basis in found["constants"]}
    assert "launch" in names
    assert any("median error on matrices left out" in name for name in names)
    assert all(basis.source and basis.status for basis in found["constants"])


def test_the_decisive_measurement_moves_the_total_by_its_share(answer: Advice) -> None:
    found = decisive(answer)
    assert found is not None
    assert found.low < 1 < found.high
    assert 0 < found.share <= 1
    assert found.against is not None
    gone = Advice(**{f.name: getattr(answer, f.name) for f in dataclasses.fields(answer)})
    gone.best = None
    assert decisive(gone) is None


def test_machines_without_a_price_are_ranked_by_time_after_those_with_one() -> None:
    free = Machine(cluster=load_cluster("t4-15gbps"), ranks=16, per_host=1)
    machines = [free, *find_machines(["8xp4de.24xlarge"])]
    found = advise(Question(run=RUN), _wide(), machines, ("cagnet-1d",))
    assert [choice.machine.name for choice in found.ranked] == [
        *("1 x p4de.24xlarge", "16 x t4-15gbps")
    ]
    assert found.ranked[1].usd is None


def test_a_free_machine_stays_cheapest_whatever_is_measured() -> None:
    (own,) = find_machines(["1xrtx4090"], constants={"rtx4090x8:price.usd_per_hour": "0"})
    rented = find_machines(["8xp4de.24xlarge"])
    found = advise(Question(run=RUN), load_profile("ogbn-products"), [own, *rented], ("sampled",))
    assert found.best is not None
    assert found.best.usd == 0
    measure = decisive(found)
    assert measure is not None
    assert measure.turn is None


def test_a_buffer_is_chosen_for_the_memory_of_a_host_that_cannot_hold_all() -> None:
    papers = load_profile("mag240m")
    run = dataclasses.replace(RUN, dataset=DatasetRef(name="mag240m", profile="mag240m"))
    machines = find_machines(["1xp3.2xlarge"])
    found = advise(Question(run=run), papers, machines, ("out-of-core",))
    assert found.best is not None
    assert found.best.approach.startswith("out-of-core (buffer ")
    host = machines[0].cluster.host.memory_bytes.value
    assert found.best.run.memory.host == host
    space = found.best.memory["spaces"]["host memory"]
    assert 0.3 * host < space["needed_bytes"] < space["limit_bytes"] == host
    assert found.unfit  # all partitions in memory


def test_of_many_machines_no_buffer_is_chosen_for_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans of many batches take seconds for each size of host."""
    monkeypatch.setattr(module, "FEW_MACHINES", 0)
    papers = load_profile("mag240m")
    run = dataclasses.replace(RUN, dataset=DatasetRef(name="mag240m", profile="mag240m"))
    found = advise(Question(run=run), papers, find_machines(["1xp3.2xlarge"]), ("out-of-core",))
    assert found.best is None
