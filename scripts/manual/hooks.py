"""MkDocs hooks: add the pages that are written from the code, and the navigation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import approach_pages
import catalogue_pages
import command_pages
import python_page
import suite_page
import tutorial_pages
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[2]
EXECUTED = ROOT / "build" / "notebooks"
Nav = list[dict[str, Any]]


def on_config(config: Any) -> Any:
    """Set the navigation: hand-written pages, then generated ones."""
    config["nav"] = navigation()
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    for path, content in generated().items():
        files.append(File.generated(config, path, content=content))
    return files


def generated() -> dict[str, str | bytes]:
    """Every generated page and figure, by path."""
    return {
        **tutorial_pages.pages(EXECUTED),
        **command_pages.pages(),
        **suite_page.pages(),
        **catalogue_pages.pages(),
        **python_page.pages(),
        **approach_pages.pages(),
    }


def navigation() -> Nav:
    """Sections in the order in which a newcomer needs them."""
    from gnnbench import cli

    tutorials = [f"tutorials/{name}.md" for name in tutorial_pages.ORDER]
    approaches: list[Any] = ["approaches/index.md"]
    for family, names in approach_pages.families().items():
        if names:
            approaches.append({family: [f"approaches/{name}.md" for name in names]})
    commands = [f"commands/{name}.md" for name in sorted(cli.discover())]
    written = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    concepts = ["concepts.md", "predictions.md"]
    concepts += [name for name in written if name not in ("index.md", *concepts)]
    reference = ["suites.md", "datasets.md", "catalogue.md", "python.md"]
    return [
        {"Start": "index.md"},
        {"Tutorials": ["tutorials/index.md", *tutorials]},
        {"Concepts": concepts},
        {"Approaches": approaches},
        {"Reference": [*reference, {"Commands": ["commands/index.md", *commands]}]},
    ]
