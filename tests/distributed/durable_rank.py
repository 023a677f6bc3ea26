"""A process that trains a durable run, and says when each period is committed; it may be killed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from gnnbench.data.source import Library
from gnnbench.spec import RunSpec
from gnnbench_runtime.conformance.perform import make_trainer


def main(job: Path) -> None:
    """Go on behind the last commit; in the end write what was learnt."""
    given: dict[str, Any] = json.loads(job.read_text(encoding="utf-8"))
    run = RunSpec.from_dict(given["run"])
    data = Library([]).open(run.dataset)
    trainer, _, _ = make_trainer(0, 1, run, data, Path(given["cache"]))
    periods = trainer.durable.resume()
    print("resumed", len(periods), flush=True)
    for period in range(len(periods), run.training.epochs):
        periods.append({"period": period, "loss": trainer.train_period(period)})
        trainer.durable.commit(periods)
        print("committed", period, flush=True)
    learnt = trainer.learnt().tolist()
    trainer.close()
    Path(given["learnt"]).write_text(json.dumps({"learnt": learnt, "periods": periods}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
