"""The gate's error rate and power, by simulation; a benchmark writes them to docs/gate.md."""

import pytest

from tests.benchmarks.gate_calibration import LEVEL, TIMED_GOAL, simulate, timed
from tests.benchmarks.gate_truths import cells

GATES = 2_000
CELLS = cells()


def test_every_claim_has_its_cells():
    kinds = [cell.kind for cell in CELLS]
    assert len(CELLS) == 52
    assert (kinds.count("wrong"), kinds.count("power"), kinds.count("never")) == (42, 8, 2)
    assert {cell.group for cell in CELLS if cell.kind == "wrong"} == {
        "right or wrong", "graded", "three looks", "four guardrails", "repeated users",
        "missing scores",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.group}, {cell.name}")
def test_the_claim_holds(cell):
    share = simulate(cell, GATES)
    print(f"\n{cell.group}, {cell.name}: {share.verdicts}")
    assert share.holds, share.verdicts
    if cell.kind == "wrong" and cell.name.startswith("equal"):
        assert share.of("reject") <= LEVEL + 3.0 * share.error, share.verdicts


def test_a_hundred_thousand_examples_with_five_metrics_take_seconds():
    assert timed() <= TIMED_GOAL
