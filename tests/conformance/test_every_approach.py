"""Every registered approach keeps what its card promises, on its own examples, in both worlds.

The statements are those of `gnnbench conform`; a third party's approach is tested like ours.
"""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the runtime extra")

from gnnbench.approaches.names import APPROACHES
from gnnbench_runtime.conformance import trials
from gnnbench_runtime.conformance.statements import Ranks
from gnnbench_simulator.conformance import plan_trials

pytestmark = pytest.mark.distributed
RANKS = Ranks()


@pytest.fixture(scope="module", autouse=True)
def _pools_end_with_the_module() -> Any:
    yield
    RANKS.pools.close()


def every_trial() -> list[Any]:
    return [
        trial for name in APPROACHES.names() for trial in (*plan_trials(name), *trials(name, RANKS))
    ]


@pytest.mark.parametrize("trial", every_trial(), ids=str)
def test_an_approach_keeps_what_its_card_promises(trial: Any) -> None:
    trial.check()
