"""Let `python -m gnnbench` be the command line."""

from __future__ import annotations

import sys

from gnnbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
