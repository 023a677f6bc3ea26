"""Arguments that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

import argparse
from pathlib import Path


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def rank_counts(text: str) -> tuple[int, ...]:
    """Parse '1,2,4' into rank counts in rising order, each once."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) > 0 for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of rank counts such as 1,2,4")
    return tuple(sorted({int(word) for word in words}))


def add_ranks(parser: argparse.ArgumentParser) -> None:
    """Add --ranks; None means what the suite says."""
    parser.add_argument(
        "--ranks",
        type=rank_counts,
        metavar="N,N",
        help="rank counts such as 1,2,4 instead of the suite's own",
    )


def add_suite(parser: argparse.ArgumentParser) -> None:
    """Add the positional SUITE: a built-in name or a TOML file."""
    parser.add_argument("suite", metavar="SUITE", help="a built-in suite such as demo, or a file")


def add_results(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add --results, the folder that holds one folder per run."""
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        required=required,
        help="results folder; finished runs in it are kept and not run again",
    )


def add_results_dir(parser: argparse.ArgumentParser) -> None:
    """Add the positional DIR of a command that reads results."""
    parser.add_argument("results", type=Path, metavar="DIR", help="a folder of finished runs")


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add --cluster; None means what the suite says."""
    parser.add_argument(
        "--cluster",
        metavar="NAME|FILE",
        help="a built-in cluster or a cluster TOML file, such as `gnnbench calibrate` writes",
    )


def add_out(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the required --out FILE."""
    parser.add_argument("--out", type=Path, metavar="FILE", required=True, help=what)


def option(text: str) -> tuple[str, str]:
    """Key and value of an option of a reader or generator, written key=value."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    return key.strip(), value.strip()
