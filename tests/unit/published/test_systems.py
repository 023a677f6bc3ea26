"""The run that a published row describes, reasons why it describes none, the split (FG-66)."""

from __future__ import annotations

import re
import sys
from math import exp
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from published_cases import LOGGED, row

from gnnbench.approaches.names import APPROACHES
from gnnbench.published.places import LOGGED_CLUSTER
from gnnbench.published.reason import Reason
from gnnbench.published.rows import PublishedRow, shipped_rows
from gnnbench.published.software import NATIVE
from gnnbench.published.split import (
    EPOCH_RADIUS,
    FIT,
    FITTED,
    HELD_OUT,
    LOGGED_RADIUS,
    PART_RADIUS,
    SCORE,
    software_radius,
    used,
    widened,
)
from gnnbench.published.systems import Case, case_of, system_of


def case(**given: Any) -> Case:
    found = case_of(row(**given))
    assert isinstance(found, Case), found
    return found


def reason(**given: Any) -> str:
    found = case_of(row(**given))
    assert isinstance(found, Reason)
    return str(found)


def test_a_synchronous_row_is_partition_on_the_hardware_it_names() -> None:
    found = case()
    assert (found.run.approach, found.run.ranks, found.cluster) == ("partition", 4, "m40x4-gloo")
    assert found.run.model.kind == "sage"
    assert found.method == "metis-vol"
    assert found.software.released


@pytest.mark.parametrize(
    ("system", "approach"),
    [
        ("Vanilla partition parallel (PipeGCN code, pipeline off)", "partition"),
        ("Full-Graph", "partition"),
        ("PipeGCN (Sync)", "partition"),
        ("PipeGCN (Async)", "pipegcn"),
        ("BNS-GCN (p=0.1)", "bns"),
        ("Quiver GPU sampling", "sampled"),
        ("DGL (Sync)", "sampled"),
        ("CAGNET-1D", "cagnet-1d"),
        ("Naive TP", "mixture"),
        ("MixGCN", "mixture"),
    ],
)
def test_the_cards_name_the_approach_that_does_the_same(system: str, approach: str) -> None:
    assert system_of(row(system=system)).approach == approach
    assert approach in APPROACHES.names()


def test_no_two_approaches_stand_for_one_published_system() -> None:
    own = {name: vars(type(APPROACHES.get(name))) for name in APPROACHES.names()}
    patterns = {name: [p.names for p in card.get("published", ())] for name, card in own.items()}
    for system in {one.system.lower() for one in shipped_rows()}:
        found = [name for name, of in patterns.items() if any(re.search(p, system) for p in of)]
        assert len(found) <= 1, system


@pytest.mark.parametrize("system", ["CAGNET-1D", "Naive TP"])
def test_a_native_system_is_our_plan_on_links_without_gloo(system: str) -> None:
    found = case(system=system, model="GCN", hardware="16x Tesla T4")
    assert (found.cluster, found.software, found.method) == ("t4-15gbps", NATIVE, "")
    assert found.run.knobs == {}


def test_knobs_hold_what_differs_from_the_defaults_of_the_approach() -> None:
    assert case().run.knobs == {"order": "aggregate_first"}
    cut = case(notes="metis cut").run.knobs
    assert cut == {"objective": "cut", "order": "aggregate_first"}


def test_hidden_layers_are_normalised_unless_the_row_says_otherwise() -> None:
    assert case().run.model.norm == "layer"
    assert case(notes="norm none").run.model.norm == "none"


def test_only_the_pipelined_code_hides_its_exchange() -> None:
    systems = ("Vanilla", "PipeGCN (sync)", "PipeGCN", "BNS-GCN (p=0.1)")
    assert [case(system=one).software.pipelined for one in systems] == [False, False, True, False]


@pytest.mark.parametrize(
    ("hardware", "cluster"),
    [
        ("4x A100-80GB/host; 2x Xeon 8480+ ; 256GB", "a100-gloo"),
        ("4-GPU NVLink EC2 host, GPU model not stated in log (p3.8xlarge-like)", "v100x4-gloo"),
        ("16x Tesla T4 (1 per ecs.gn6i node)", "t4-15gbps"),
    ],
)
def test_words_of_the_hardware_name_the_cluster(hardware: str, cluster: str) -> None:
    assert case(hardware=hardware).cluster == cluster


def test_the_sampling_rate_of_bns_is_the_one_that_the_row_states() -> None:
    assert case(system="BNS-GCN (p=0.01)").run.knobs["rate"] == 0.01
    assert "rate" not in case(system="BNS-GCN (p=0.1)").run.knobs  # the approach's default
    assert case(system="BNS-GCN", notes="p=1; METIS").run.knobs["rate"] == 1.0
    assert "rate" not in case(system="BNS-GCN").run.knobs  # of the scripts, where a row has none


def test_precomputation_follows_the_row_and_bns_always_has_it() -> None:
    """Fullgraph section 6: the code of BNS-GCN refuses to run without."""
    assert not case().software.precompute
    assert case(notes="use_pp=True").software.precompute
    assert not case(notes="use_pp=False, norm none").software.precompute
    assert case(system="BNS-GCN (p=0.1)").software.precompute
    assert case(model="GAT").software.precompute


@pytest.mark.parametrize("notes", ["heads=2; METIS", "full-graph; heads 2;"])
def test_heads_are_each_as_wide_as_the_hidden_width(notes: str) -> None:
    model = case(model="GAT", hidden="64", notes=notes).run.model
    assert (model.heads, model.hidden) == (2, 128)


def test_a_stated_halo_replaces_the_one_of_the_profile() -> None:
    profile = case(notes="METIS vol; halo total 3377").profile
    point, _ = profile.expected_halo(4, "metis-vol")
    assert round(point.halo_per_node * profile.num_nodes) == 3377


def test_hosts_and_ranks_on_each_are_those_of_the_row() -> None:
    notes = "3 host(s) x 2 GPUs"
    given = {"source": "Bajaj et al. 2025", "dataset": "ogbn-papers100m"}
    assert case(**given, gpus="6", notes=notes).ranks_per_host == 2
    assert case(**given, notes="3 hosts x 4 GPUs").ranks_per_host == 4


def test_a_study_that_counts_another_graph_of_a_name_is_predicted_on_that_one() -> None:
    study = {"source": "Bajaj et al. 2025"}
    assert case(**study, dataset="ogbn-arxiv").profile.name == "arxiv-one-way"
    assert case(dataset="ogbn-arxiv").profile.name == "ogbn-arxiv"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"dataset": "some new graph"}, "graph without a profile: some new graph"),
        ({"hardware": "8x B300"}, "hardware without a preset: 8x B300"),
        ({"hardware": ""}, "hardware not stated"),
        ({"hardware": "not stated (README: 32 GB NVIDIA GPUs)"}, "hardware not stated"),
        ({"system": "SuperGNN"}, "system not modelled: SuperGNN"),
        ({"system": "AdaQP"}, "system not modelled: AdaQP"),
        ({"model": "R-GCN"}, "model not modelled: R-GCN"),
        ({"hidden": "", "layers": "2-3"}, "configuration not stated: layers '2-3', hidden ''"),
        ({"notes": "METIS vol, inductive"}, "inductive"),
        ({"metric": "time_to_accuracy"}, "needs training"),
        ({"metric": "test_accuracy", "unit": "%"}, "needs training"),
        ({"metric": "speedup_max", "unit": "x"}, "a ratio or claim"),
        ({"metric": "out_of_memory", "unit": "bool"}, "metric not modelled"),
        ({"unit": "fortnights"}, "unit not known"),
        ({"gpus": "4096"}, "configuration out of range: gpus 4096"),
        ({"layers": "1000"}, "configuration out of range: layers 1000"),
        ({"system": "CAGNET-1D", "model": "GCN"}, "other than through gloo"),
        ({"value": 0.0}, "value is not positive"),
        ({"system": "DGL mini-batch NS"}, "fan-outs and batch"),
        ({"system": "DistDGL", "fanout": "5-5-5", "batch": "1024/GPU"}, "how DistDGL fetches"),
        ({"system": "DGL", "fanout": "5-5", "batch": "1024/GPU"}, "fan-outs 5-5, batch"),
        ({"system": "DGL", "fanout": "5-5-5", "batch": "1024"}, "whether batch 1024 is of one"),
        (
            {"system": "METIS partition", "metric": "halo_nodes_total", "unit": "vertices"},
            "objective of METIS",
        ),
        ({"model": "GAT", "notes": "heads=2", "gpus": "0"}, "configuration not stated: gpus '0'"),
    ],
)
def test_what_is_not_known_is_a_reason_and_no_guess(given: dict[str, Any], why: str) -> None:
    assert why in reason(**given)


def test_rows_of_one_configuration_share_a_key_wherever_they_stand() -> None:
    other = case(metric="comm_time", row_id="other:77", value=0.5, location="Table 9")
    assert case().key == other.key
    assert case(hidden="128").key != case().key
    assert case(notes="halo total 3377").key != case().key


def logged(hidden: int, metric: str = "comm_time", **given: Any) -> PublishedRow:
    return row(model="GAT", hidden=str(hidden), notes=LOGGED, metric=metric, **given)


@pytest.mark.parametrize("metric", ["comm_time", "comm_time_min_rank", "epoch_time"])
def test_fg_66_odd_widths_of_logged_trainings_were_fitted_even_ones_are_held_out(
    metric: str,
) -> None:
    for hidden, half in ((83, FIT), (96, HELD_OUT)):
        found = case_of(logged(hidden, metric))
        assert isinstance(found, Case)
        assert found.cluster == LOGGED_CLUSTER
        assert used(logged(hidden, metric), found) == half


def test_rows_of_tables_are_scores_on_a_cluster_without_a_fit() -> None:
    found = case(hidden="255")
    assert found.cluster == "m40x4-gloo"
    assert used(row(hidden="255"), found) == SCORE


def test_the_fit_rests_on_as_many_rows_as_it_says() -> None:
    from gnnbench.cluster import load_cluster

    (model,) = load_cluster(LOGGED_CLUSTER).collectives
    found = [(r, case_of(r)) for r in shipped_rows() if r.metric == "comm_time"]
    fitted = [r for r, c in found if isinstance(c, Case) and used(r, c) == FIT]
    assert (len(fitted), model.status) == (model.points, "fitted")


def test_an_interval_is_never_narrower_than_what_is_unknown_of_the_software() -> None:
    low, high = widened(2.0, 2.0, 2.0, 0.4)
    assert (low, high) == pytest.approx((2 * exp(-0.4), 2 * exp(0.4)))
    wide_low, wide_high = widened(2.0, 1.0, 4.0, 0.4)
    assert wide_low < 1.0
    assert wide_high > 4.0


def test_dgl_lists_fan_outs_input_layer_first_and_quiver_seeds_first() -> None:
    """Sampling section 2."""
    given = {"fanout": "5,10,15", "batch": "1024/GPU"}
    assert case(system="DGL", **given).run.batch.fanouts_from_seeds == (15, 10, 5)
    assert case(system="Quiver", **given).run.batch.fanouts_from_seeds == (5, 10, 15)


def test_a_batch_per_device_is_summed_over_the_devices() -> None:
    given = {"system": "DGL", "fanout": "5,10,15"}
    assert case(batch="1024/GPU", gpus="4", **given).run.batch.size == 4096
    assert case(batch="1024", gpus="1", **given).run.batch.size == 1024


def test_a_training_on_that_host_that_nobody_fitted_is_a_score() -> None:
    for given in ({"dataset": "reddit"}, {"gpus": "2"}):
        one = row(**({"model": "GAT", "hidden": "83", "notes": LOGGED} | given))
        found = case_of(one)
        assert isinstance(found, Case)
        assert found.cluster == LOGGED_CLUSTER
        assert used(one, found) == SCORE


def test_the_declared_rule_names_the_fitted_widths() -> None:
    """Odd ones, all of them, and no other."""
    rows = [r for r in shipped_rows() if "mean up to epoch" in r.notes and r.metric == "comm_time"]
    odd = {(r.dataset, r.num_layers, r.hidden_width) for r in rows if (r.hidden_width or 0) % 2}
    listed = {(graph, n, width) for (graph, n), widths in FITTED.items() for width in widths}
    assert listed == odd


def test_what_is_unknown_of_software_differs_by_family_and_is_more_of_parts_of_an_epoch() -> None:
    epoch, part = row(), row(metric="comm_time")
    assert software_radius(epoch, case()) == EPOCH_RADIUS["whole_graph"]
    assert software_radius(part, case()) == PART_RADIUS["whole_graph"]
    logged = row(model="GAT", hidden="84", notes=LOGGED)
    found = case_of(logged)
    assert isinstance(found, Case)
    assert software_radius(logged, found) == LOGGED_RADIUS
    assert all(PART_RADIUS[family] >= radius for family, radius in EPOCH_RADIUS.items())
