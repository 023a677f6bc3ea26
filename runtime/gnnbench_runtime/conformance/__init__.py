"""Conformance of an approach: the promise of its card, compared with what its trainer does.

Every registered approach is tested on its own examples, also those of other packages: by the
command `gnnbench conform NAME`, or in a test of your own

    @pytest.mark.parametrize("trial", trials("mine"), ids=str)
    def test_mine_conforms(trial):
        trial.check()
"""

from gnnbench_runtime.conformance.statements import STATEMENTS, Broken, Trial, trials

__all__ = ["STATEMENTS", "Broken", "Trial", "trials"]
