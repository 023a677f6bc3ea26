"""Arguments that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

MOST_RANKS = 1_000_000
"""As in suites."""


def output_file(text: str) -> Path:
    """Parse the path of a file to write; looked at before work that takes minutes."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: name a file in it")
    _check_parent(path.parent, text)
    return path


def output_folder(text: str) -> Path:
    """Parse the path of a folder to write into; looked at before work that takes minutes."""
    _check_parent(Path(text), text)
    return Path(text)


def _check_parent(folder: Path, text: str) -> None:
    """Refuse a path under what is no folder or cannot be written."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"{text}: {folder} cannot be written to")


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value < 2**53:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a whole number of at least 1")
    return value


def repeats(text: str) -> int:
    """Parse a number of repeats, 1 to 1000 as in suites."""
    value = positive_int(text)
    if value > 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 to 1000")
    return value


def seed(text: str) -> int:
    """Parse a seed: a whole number from 0 on, below 2^31."""
    if not (text.isascii() and text.isdecimal() and int(text[:20]) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 to 2147483647")
    return int(text)


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def share(text: str) -> float:
    """Parse a percentage such as 10, 10% or 2.5 % into a share; 0 or more."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage such as 10 or 2.5%")
    return value / 100


def rank_counts(text: str) -> tuple[int, ...]:
    """Parse '1,2,4' into rank counts in rising order, each once."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() for word in words) or not all(
        0 < int(word[:20]) <= MOST_RANKS for word in words
    ):
        raise argparse.ArgumentTypeError(
            f"{text[:60]!r} is not a list of rank counts such as 1,2,4 of at most {MOST_RANKS:,}"
        )
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
        type=output_folder,
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
    parser.add_argument("--out", type=output_file, metavar="FILE", required=True, help=what)


def option(text: str) -> tuple[str, str]:
    """Key and value of an option of a reader or generator, written key=value."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value")
    return key.strip(), value.strip()


def size(text: str) -> int:
    """Parse bytes such as 2GB or 512MiB; at least 1."""
    from gnnbench.units import size_bytes

    value = int(_of_units(size_bytes, text))
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size above 0")
    return value


def duration(text: str) -> float:
    """Parse a duration such as 30min or 2h into seconds."""
    from gnnbench.units import duration_s

    return _of_units(duration_s, text)


def rate(text: str) -> float:
    """Parse a rate of events such as 579, 2k/s or 50M/day into events per second."""
    from gnnbench.units import rate_per_s

    return _of_units(rate_per_s, text)


def _of_units(parse: Callable[[str], float], text: str) -> float:
    """What a parser of units finds; its error is then one of the option."""
    from gnnbench.errors import SpecError

    try:
        return parse(text)
    except SpecError as error:
        raise argparse.ArgumentTypeError(" ".join(error.problems)) from None
