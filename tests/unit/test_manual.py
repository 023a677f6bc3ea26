"""The manual: built strictly, complete, without a link that leads nowhere or to a network."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

from gnnbench import cli
from gnnbench.approaches.base import Layout, example
from gnnbench.approaches.names import APPROACHES
from gnnbench.commands.info import knobs, meanings
from gnnbench.data.source import Library
from gnnbench.steps import After, Kind, Lane, Phase, Step, Work
from gnnbench.suites import parse_suite
from tests.unit.reports.browser import PROGRAM, Browser

REPO = Path(__file__).resolve().parents[2]
MANUAL = REPO / "scripts" / "manual"
ROOTS = (REPO, *(REPO / root for root in ("runtime", "simulator", "reports")))
INSTALLED = all(importlib.util.find_spec(name) for name in ("mkdocs", "material"))
NEEDS_MKDOCS = pytest.mark.skipif(
    not INSTALLED, reason="mkdocs-material is not installed: pip install 'gnnbench[dev]'"
)


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Imports a module of the manual's generator by name."""
    monkeypatch.syspath_prepend(str(MANUAL))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Warnings of the build are errors."""
    out = tmp_path_factory.mktemp("manual") / "site"
    known = os.environ.get("PYTHONPATH", "")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=REPO,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*map(str, ROOTS), known]),
            "NO_MKDOCS_2_WARNING": "true",
        },
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return out


class Links(HTMLParser):
    """What a page refers to, what it loads, and its anchors."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        self.ids.add(found.get("id", ""))
        if tag == "a" and "href" in found:
            self.hrefs.append(found["href"])
        if tag == "link" and found.get("rel") not in ("canonical", "next", "prev"):
            self.loads.append(found.get("href", ""))
        if tag in ("script", "img", "iframe") and found.get("src"):
            self.loads.append(found["src"])


@NEEDS_MKDOCS
def test_every_command_and_approach_has_a_page(site: Path) -> None:
    for name in cli.discover():
        assert (site / "commands" / f"{name}.html").is_file()
    for name in APPROACHES.names():
        page = (site / "approaches" / f"{name}.html").read_text(encoding="utf-8")
        assert page.count("<svg xmlns") >= 1, name


@NEEDS_MKDOCS
def test_every_link_of_the_site_leads_to_a_page_and_an_anchor(site: Path) -> None:
    pages = {path.resolve(): Links(path) for path in site.rglob("*.html") if path.stem != "404"}
    wrong = []
    for path, links in pages.items():
        for href in links.hrefs + links.loads:
            address = urlsplit(href)
            if address.scheme or href.startswith("//"):
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            anchored = not address.fragment or address.fragment in {
                *(pages[target].ids if target in pages else ()),
                "__top",
            }
            if not target.exists() or (target in pages and not anchored):
                wrong.append(f"{path.relative_to(site.resolve())}: {href}")
    assert not wrong


@NEEDS_MKDOCS
def test_no_page_loads_anything_from_a_network(site: Path) -> None:
    for path in site.rglob("*.html"):
        loads = Links(path).loads
        assert [one for one in loads if urlsplit(one).netloc] == [], path.name


SEARCH = """
new Promise(done => {
  const field = document.querySelector("[data-md-component=search-query]");
  field.focus();
  field.value = "staleness";
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.dispatchEvent(new KeyboardEvent("keyup", { bubbles: true }));
  let tries = 0;
  const timer = setInterval(() => {
    const links = [...document.querySelectorAll(".md-search-result__link")];
    if (links.length || tries++ > 150) {
      clearInterval(timer);
      done(links.map(link => link.getAttribute("href")).join(" "));
    }
  }, 200);
})
"""


@NEEDS_MKDOCS
@pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")
def test_pages_opened_from_the_disk_can_be_searched_and_fit_500_pixels(
    site: Path, tmp_path: Path
) -> None:
    browser = Browser(tmp_path)
    try:
        browser.resize(500)
        browser.open(site / "approaches" / "sampled.html")
        assert browser.run("document.documentElement.scrollWidth") <= 500
        browser.resize(1200)
        assert "approaches/pipegcn.html" in browser.run(SEARCH)
        assert browser.errors == []
    finally:
        browser.close()


def test_every_knob_of_every_approach_has_a_meaning() -> None:
    silent = [
        f"{name}.{knob['knob']}"
        for name in APPROACHES.names()
        for knob in knobs(APPROACHES.get(name).knobs_type)
        if not knob["meaning"]
    ]
    assert not silent


def test_every_key_of_a_suite_has_a_meaning(part: object) -> None:
    page = part("suite_page")  # type: ignore[operator]
    silent = [
        f"{title} {field.name}"
        for title, _, cls in page.SECTIONS
        for field in dataclasses.fields(cls)
        if field.name not in ("name", "digest") and not meanings(cls).get(field.name)
    ]
    assert not silent


def test_the_suite_that_the_manual_shows_is_a_suite(part: object) -> None:
    table = tomllib.loads(part("suite_page").example())  # type: ignore[operator]
    assert len(parse_suite(table, "manual").runs) == 6


def test_an_approachs_page_has_the_bytes_of_its_plan(part: object, tmp_path: Path) -> None:
    module = part("approach_pages")  # type: ignore[operator]
    card, run = APPROACHES.get("partition"), example("partition")
    page = module.approach_page(card, module.Planner(tmp_path))
    data = Library([]).open(run.dataset)
    layout = Layout(world_size=run.ranks, ranks_per_host=run.ranks)
    moved = card.plan(data, run, card.structure(data, run), layout).moved_bytes(0)
    assert len(moved) > 1
    for total in moved.values():
        assert f'<td class="number">{total:,}</td>' in page


def test_pages_of_approaches_refer_to_no_notes_that_the_manual_lacks(part: object) -> None:
    explained = part("approach_pages").explained  # type: ignore[operator]
    texts = [explained(APPROACHES.get(name)) for name in APPROACHES.names()]
    assert not [text for text in texts if " section" in text]
    assert [text for text in texts if "KDD 2019; invariants SA-S4, SA-S9." in text]


def test_text_on_a_page_is_escaped_and_docstrings_keep_their_blocks(part: object) -> None:
    page = part("page")  # type: ignore[operator]
    assert page.inline("a < b in `x<y>`") == "a &lt; b in <code>x&lt;y&gt;</code>"
    made = page.prose("First line.\n\n    a    1\n    b < 2\n\nArgs:\n    n: how\n        many.")
    assert "<p>First line.</p>" in made
    assert "<pre><code>a    1\nb &lt; 2</code></pre>" in made
    assert '<th scope="row">n</th><td>how many.</td>' in made


def test_a_page_says_whether_its_notebook_was_executed(part: object, tmp_path: Path) -> None:
    module, percent = part("tutorial_pages"), part("percent")  # type: ignore[operator]
    name = "compare_approaches"
    assert "built without outputs" in module.pages(tmp_path)[f"tutorials/{name}.md"]
    cells = percent.parse((REPO / "notebooks" / f"{name}.py").read_text(encoding="utf-8"))
    svg = {"image/svg+xml": ["<svg/>"], "text/plain": ["figure"]}
    cells[1].outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["two\n", "lines\n"]},
        {"output_type": "display_data", "metadata": {}, "data": svg},
    ]
    (tmp_path / f"{name}.ipynb").write_text(percent.notebook(cells, executed=True))
    pages = module.pages(tmp_path)
    page = pages[f"tutorials/{name}.md"]
    assert "built without outputs" not in page
    assert "two\nlines\n```" in page
    assert pages[f"tutorials/{name}-1-1.svg"] == b"<svg/>"
    assert f'src="{name}-1-1.svg"' in page


def step(name: str, lane: Lane, *after: After) -> Step:
    return Step(
        name=name, work=Work(Kind.GEMM, "gemm"), lane=lane, phase=Phase.FORWARD, after=after
    )


def test_a_drawn_step_begins_after_what_it_waits_for_and_lanes_run_apart(part: object) -> None:
    steps = [
        step("a", Lane.COMPUTE),
        step("b", Lane.COMM, After("a")),
        step("c", Lane.COMPUTE),
        step("d", Lane.COMPUTE, After("b"), After("c")),
        step("e", Lane.COMM, After("d", lag=1)),
    ]
    placed = part("plan_drawing").schedule(steps)  # type: ignore[operator]
    assert [(one.step.name, one.row, one.at) for one in placed] == [
        ("a", 0, 0),
        ("b", 1, 1),
        ("c", 0, 1),
        ("d", 0, 2),
        ("e", 1, 2),
    ]


def test_a_drawing_escapes_names_and_marks_waits_for_earlier_iterations(part: object) -> None:
    steps = [step("<b>", Lane.COMPUTE, After("<b>", lag=2))]
    drawn = part("plan_drawing").draw(steps, "one step")  # type: ignore[operator]
    assert "<b>" not in drawn
    assert "waits for &lt;b&gt;, 2 iterations earlier" in drawn
    assert drawn.count('class="earlier"') == 1
