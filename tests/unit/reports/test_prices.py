"""The price page: settings of one file, predicted, priced and written as Markdown."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnnbench.cli import main
from gnnbench.errors import SpecError
from gnnbench.price_page import list_pages, load_page
from gnnbench_reports.price_table import COLUMNS, markdown
from gnnbench_simulator.prices import PricedSetting, price

PAGE = """
schema = 1
title = "A small page"
text = ["One sentence."]
remarks = ["A remark."]

[[workloads]]
title = "arxiv"
profile = "ogbn-arxiv"
model = { name = "sage", kind = "sage", hidden = 32, layers = 2 }
batch = { size = 20000, fanouts_from_seeds = [5, 5] }

[[workloads.settings]]
label = "disk"
machine = "p3.2xlarge"
approach = "out-of-core"
knobs = { partitions = 16, buffer = 12 }

[[workloads.settings]]
label = "memory, 4 GPUs"
machine = "p3.8xlarge"
ranks = 4
approach = "sampled"
knobs = { placement = "host" }

[[workloads.settings]]
label = "disk, two GPUs"
machine = "p3.8xlarge"
ranks = 2
approach = "out-of-core"
"""


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "page.toml"
    path.write_text(PAGE, encoding="utf-8")
    return path


@pytest.fixture
def priced(written: Path) -> list[PricedSetting]:
    return price(load_page(str(written)))[0]


def test_a_setting_costs_the_rent_of_its_hosts(priced: list[PricedSetting]) -> None:
    disk, memory, _ = priced
    assert disk.runs and memory.runs
    assert disk.record is not None and memory.record is not None
    assert disk.usd(3600.0) == 3.06
    assert memory.usd(memory.record.period_s) == pytest.approx(
        12.24 * memory.record.period_s / 3600
    )
    # Features and edges of three quarters of the partitions are read, and nothing is written.
    assert disk.disk_bytes > 0.7 * 169_343 * 128 * 4
    assert memory.disk_bytes == 0


def test_a_setting_that_cannot_run_has_its_reason(priced: list[PricedSetting]) -> None:
    assert not priced[2].runs
    assert "one rank" in priced[2].reason


def test_the_page_has_interval_evidence_command_and_answer(
    written: Path, priced: list[PricedSetting]
) -> None:
    text = markdown(load_page(str(written)), [priced], "gnnbench prices page.toml")
    lines = text.splitlines()
    assert lines[0] == "# A small page"
    assert "Made by `gnnbench prices page.toml`." in text
    rows = [line for line in lines if line.startswith("| ")]
    assert all(line.count("|") == len(COLUMNS) + 1 for line in rows)
    assert "datasheet" in rows[2]
    assert "cannot run" in rows[4]
    assert any(line.startswith("Fastest: ") for line in lines)
    assert lines[-1] == "- A remark."


def test_a_page_of_the_catalogue_is_valid_and_names_what_exists() -> None:
    from gnnbench.approaches.names import APPROACHES
    from gnnbench.cluster import list_clusters
    from gnnbench.data.profile import list_profiles

    assert list_pages() == ["disk-prices"]
    for name in list_pages():
        page = load_page(name)
        for workload in page.workloads:
            assert workload.profile in list_profiles()
            for setting in workload.settings:
                assert setting.machine in list_clusters()
                problems: list[str] = []
                card = APPROACHES.get(setting.approach)
                card.parse_knobs(setting.knobs, setting.label, problems)
                assert not problems
        assert "p3.2xlarge" in " ".join(page.text)


def test_an_unknown_key_is_an_error(written: Path) -> None:
    written.write_text(PAGE.replace("ranks = 4", "rank = 4"), encoding="utf-8")
    with pytest.raises(SpecError, match="rank: unknown key"):
        load_page(str(written))


def test_the_command_writes_the_page(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "prices.md"
    assert main(["prices", str(written), "--out", str(out)]) == 0
    assert out.read_text(encoding="utf-8").startswith("# A small page")
    assert "Fastest" in capsys.readouterr().out
