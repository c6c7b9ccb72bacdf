"""Rollouts stop what they should and let pass what they should, looked at every hour."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from scipy import stats

from ratchet.deploy.rollout.canary import judge
from ratchet.deploy.rollout.evidence import moved_users
from ratchet.records import Rollout, RolloutPlan, Variant
from ratchet.stats.experiments.clustered_difference import moments_of
from ratchet.stats.experiments.sample_ratio import sticky_groups
from tests.benchmarks.canary import BROKEN, even_test
from tests.benchmarks.release_simulation import World
from tests.benchmarks.rollout_simulation import (
    HARM,
    PROMOTED,
    RATIO,
    RUNNING,
    START,
    Rollouts,
    Scenario,
)

PLAN = RolloutPlan()
QUICK = RolloutPlan.model_validate(
    {
        "stages": [
            {"share": 0.1, "hours": 1, "slack": 10, "imbalance": 4},
            {"share": 0.3, "hours": 2, "slack": 8, "imbalance": 2},
            {"share": 0.5, "hours": 3, "slack": 3},
        ]
    }
)


def at_most(count: int, number: int, level: float) -> bool:
    """Whether so many are no more than chance at a rate of the level: p at least 0.1 %."""
    return bool(stats.binom.sf(count - 1, number, level) >= 0.001)


def run(rates: dict[str, float], number: int = 200, **changes: float) -> Rollouts:
    world = World(**({"hourly": 2_000.0, "thumbs": 0.10} | changes))
    made = Rollouts(Scenario(world, rates), number, np.random.default_rng([8, number]), PLAN)
    made.run()
    return made


def test_the_simulation_carries_the_sums_that_the_product_takes() -> None:
    made = Rollouts(
        Scenario(World(hourly=400.0, thumbs=0.3), {}), 4, np.random.default_rng(1), QUICK
    )
    for _ in range(20):
        made.advance()
        made.look()
    assert made.stage.min() >= 1
    for place in range(len(made.signals)):
        events, trials = made.counts[place][..., 0, :], made.counts[place][..., 1, :]
        carried, summed = made.moments(place), moments_of(events, trials)
        for name in ("successes", "trials", "clusters", "yy", "yn", "nn"):
            assert np.allclose(getattr(carried, name), getattr(summed, name)), name
        hit = events > 0
        groups = sticky_groups(hit[..., 0::2], hit[..., 1::2], made.shares.tolist())
        assert (groups.trials == made.hit[place].groups().trials).all()
        assert (groups.successes == made.hit[place].groups().successes).all()
    assert moved_users(made.seen[0].reshape(made.users, -1, 2)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("rates", [{}, {"thumbs_down": 0.16}, {"failed": 0.05}])
def test_the_simulation_decides_as_the_product_does_on_the_same_counts(
    rates: dict[str, float],
) -> None:
    """Look by look: what the product's own rule says is what happens in the simulation."""
    made = Rollouts(
        Scenario(World(hourly=600.0, thumbs=0.2), rates), 6, np.random.default_rng(3), QUICK
    )
    rollout = Rollout(
        id="r", created_at=START, champion=Variant(version="m/1", share=1.0),
        challenger=Variant(version="m/2", share=1.0), plan=QUICK, signals=made.signals,
    )  # fmt: skip
    compared = {"wait": 0, "advance": 0, "promote": 0, "abort": 0}
    starts = [[START] for _ in range(6)]
    for _ in range(60):
        made.advance()
        now = START + timedelta(hours=made.clock)
        said = {
            row: judge(rollout, made.tally(row), starts=starts[row], until=now).decision
            for row in np.flatnonzero(made.outcome == RUNNING)
        }
        before = made.stage.copy()
        made.look()
        for row, decision in said.items():
            did = "wait" if made.stage[row] == before[row] else "advance"
            did = {PROMOTED: "promote", HARM: "abort", RATIO: "abort"}.get(
                int(made.outcome[row]), did
            )
            assert decision == did, (row, made.clock)
            compared[decision] += 1
            if decision == "advance":
                starts[row].append(now)
    assert sum(compared.values()) > 10
    assert compared["abort"] > 0 if rates else compared["advance"] > 6


@pytest.mark.slow
def test_a_harmful_release_is_aborted_before_half_of_the_users_have_it() -> None:
    made = run({"thumbs_down": 0.12})
    aborted = (made.outcome == HARM) & np.isnan(made.half)
    assert at_most(int((~aborted).sum()), aborted.size, 0.05)


@pytest.mark.slow
def test_a_harmless_release_is_aborted_in_at_most_the_stated_level() -> None:
    made = run({})
    stopped = int(np.isin(made.outcome, (HARM, RATIO)).sum())
    assert at_most(stopped, made.number, PLAN.harm_error + PLAN.ratio_error)
    assert (made.outcome == PROMOTED).mean() > 0.8


@pytest.mark.slow
def test_users_who_differ_strongly_and_come_often_break_no_error_rate() -> None:
    world = {"user_spread": 1.5, "visits": 15.0}
    made = run({}, 150, **world)
    stopped = int(np.isin(made.outcome, (HARM, RATIO)).sum())
    assert at_most(stopped, made.number, PLAN.harm_error + PLAN.ratio_error)


@pytest.mark.slow
def test_a_release_that_is_worse_by_the_margin_passes_at_most_at_the_stated_level() -> None:
    made = run({"thumbs_down": 0.10})
    assert at_most(int(np.isfinite(made.half).sum()), made.number, PLAN.pass_error)


@pytest.mark.slow
@pytest.mark.parametrize("odds", [BROKEN, 1 / BROKEN])
def test_a_55_to_45_assignment_is_caught_before_any_read_out(odds: float) -> None:
    called, before, _ = even_test(odds, np.random.default_rng(5), 2_000)
    assert called == 2_000
    assert at_most(2_000 - before, 2_000, 0.01)


@pytest.mark.slow
def test_a_sound_assignment_is_called_broken_in_at_most_the_stated_level() -> None:
    called, _, _ = even_test(1.0, np.random.default_rng(6), 2_000)
    assert at_most(called, 2_000, PLAN.ratio_error)
