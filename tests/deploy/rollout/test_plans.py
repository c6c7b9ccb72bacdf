import pytest
from pydantic import ValidationError

from ratchet.deploy.rollout.plans import fit_plan
from ratchet.errors import InsufficientDataError
from ratchet.records import RolloutPlan, RolloutStage
from ratchet.stats.experiments.sample_ratio import as_groups, finds_imbalance


def test_with_many_users_a_plan_stays_as_it_is():
    assert fit_plan(RolloutPlan(), 50_000) == (RolloutPlan(), ())


def test_a_small_product_begins_with_a_larger_share_and_asks_for_what_it_can_find():
    plan, notes = fit_plan(RolloutPlan(), 480)
    assert [stage.share for stage in plan.stages] == [0.25, 0.5]
    for stage in plan.stages:
        assert finds_imbalance(as_groups(0, 480, stage.share), stage.imbalance, alpha=0.01)
    assert notes[0] == "no stage of 1%: its arm would have 5 of 480 users"
    assert any("50% the assignment is trusted once odds that are wrong by 2" in n for n in notes)


@pytest.mark.parametrize("users", [0, 30, 79])
def test_too_few_users_for_any_stage_are_refused(users):
    with pytest.raises(InsufficientDataError, match="needs more users"):
        fit_plan(RolloutPlan(), users)


def test_the_default_plan_lets_little_harm_reach_all_users_in_any_stage():
    # share times the rise that is let through, of the primary signal: half a point and a bit
    plan = RolloutPlan()
    margin = next(signal.margin for signal in plan.signals if signal.primary)
    for stage in plan.stages[:-1]:
        assert stage.share * stage.slack * margin <= 0.0061


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ({"share": 0.5, "hours": 1}, {"share": 0.1, "hours": 1})}, "growing shares"),
        ({"stages": ()}, "at least 1 item"),
        ({"signals": ({"name": "failed", "margin": 0.1},)}, "exactly one be primary"),
        ({"harm_error": 0.7}, "less than 0.5"),
        ({"stages": ({"share": 1.0, "hours": 1},)}, "less than 1"),
    ],
)
def test_a_plan_that_does_not_hold_together_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        RolloutPlan.model_validate(changes)


def test_a_stage_is_a_plain_record():
    stage = RolloutStage(share=0.1, hours=1.0)
    assert RolloutStage.model_validate(stage.canonical()) == stage
