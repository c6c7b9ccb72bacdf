import pytest

from ratchet.evaluation.code_execution.sandbox import Limits
from tests.benchmarks.humaneval_sandbox import GOAL_SECONDS, run_all


@pytest.mark.slow
def test_good_solutions_of_all_problems_pass_no_other_does_and_nothing_escapes(
    isolation, shared_data
):
    run = run_all(shared_data, Limits(seconds=2.0, cpu_seconds=1), workers=4)
    assert run.misjudged == []
    assert run.escapes == []
    assert sum(run.ends.values()) == 4 * 164
    assert run.ends["good", "passed"] == 164
    assert run.ends["hanging", "timed out"] == 164
    print(f"\n{run.seconds:.0f} s")
    assert run.seconds <= GOAL_SECONDS
