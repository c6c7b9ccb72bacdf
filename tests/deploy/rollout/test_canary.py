import dataclasses
from datetime import timedelta

import pytest

from ratchet.deploy.rollout.canary import (
    act_on,
    judge,
    outcome,
    stage_starts,
    start_rollout,
    stop_rollout,
    take_look,
)
from ratchet.deploy.rollout.exposure_counts import Tally
from ratchet.deploy.rollout.variants import start_test
from ratchet.deploy.routing import (
    current_routing,
    follow,
    last_look,
    looks_of,
    running_rollout,
    serving_champion,
    waiting_move,
)
from ratchet.errors import ConflictError, InsufficientDataError, InvalidInputError
from ratchet.records import (
    SIGNAL_NAMES,
    AlertEvent,
    Release,
    Rollout,
    RolloutLook,
    RolloutPlan,
    RolloutStage,
    RolloutStop,
    Routing,
    Variant,
)
from tests.deploy.rollout.served import NEW, NEW_VARIANT, OLD, PLAN, released, serve
from tests.deploy.rollout.test_variants import met

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
HURT = {"challenger": 0.6}


@pytest.fixture
def begun(store, now):
    """A champion with traffic, and a rollout that begins now."""
    released(store, now)
    return start_rollout(store, NEW_VARIANT, PLAN, now=now)


def traffic(store, start, hours=1.5, number=1_500, **changes):
    serve(store, current_routing(store), start, hours=hours, number=number, **changes)


def look_at(store, rollout, moment):
    look = take_look(store, rollout, moment)
    act_on(store, look, moment)
    return look


# Starting -----------------------------------------------------------------------------------------


def test_a_rollout_sends_its_first_share_to_the_challenger(store, now, begun):
    routing = current_routing(store)
    assert [(v.version, v.label, v.share) for v in routing.variants] == [
        (NEW, "challenger", 0.2), (OLD, "champion", 0.8)
    ]  # fmt: skip
    assert (routing.experiment, routing.previous) == (begun.id, OLD)
    assert running_rollout(store) == begun
    assert outcome(store, begun) == "running"


def test_only_signals_that_the_application_reports_are_watched(store, begun):
    assert [signal.name for signal in begun.signals] == [
        "thumbs_down", "regenerated", "failed", "slow"
    ]  # fmt: skip
    assert {name for name, _ in begun.unwatched} == {"not_completed", "unsafe"}
    assert begun.slow_seconds == pytest.approx(0.5)  # all answers of `serve` took that long


def test_a_primary_signal_that_nobody_reports_is_refused(store, now):
    released(store, now)
    plan = RolloutPlan.model_validate(
        {"signals": [{"name": "not_completed", "margin": 0.02, "primary": True}]}
    )
    with pytest.raises(InsufficientDataError, match="'not_completed' within 300 s of 100 answers"):
        start_rollout(store, NEW_VARIANT, plan, now=now)
    assert store.latest(Rollout) is None


def test_a_primary_signal_that_comes_later_than_it_is_read_is_refused(store, now):
    released(store, now)
    plan = PLAN.model_copy(update={"lag_seconds": 1})
    with pytest.raises(InsufficientDataError, match=r"'thumbs_down' within 1 s .*, got 0; .*lag"):
        start_rollout(store, NEW_VARIANT, plan, now=now)
    assert store.latest(Rollout) is None


def test_without_a_champion_nothing_is_rolled_out(store, now):
    with pytest.raises(InsufficientDataError, match="needs a champion"):
        start_rollout(store, NEW_VARIANT, PLAN, now=now)


def test_the_champion_itself_is_refused_but_not_with_another_prompt(store, now):
    released(store, now)
    same = Variant(version=OLD, share=1.0)
    with pytest.raises(InvalidInputError, match="must differ"):
        start_rollout(store, same, PLAN, now=now)
    prompted = same.model_copy(update={"system_prompt": "be brief"})
    assert start_rollout(store, prompted, PLAN, now=now).challenger.system_prompt == "be brief"


def test_one_rollout_or_test_at_a_time(store, now, begun):
    other = Variant(version="support-router/3", share=0.3)
    with pytest.raises(ConflictError, match="one rollout or test"):
        start_rollout(store, other, PLAN, now=now + MINUTE)
    with pytest.raises(ConflictError, match="one rollout or test"):
        start_test(store, "t", [other], now=now + MINUTE)
    assert running_rollout(store) == begun


# Looking and acting -------------------------------------------------------------------------------


def test_a_good_release_goes_through_its_stages_to_the_champion(store, now, begun):
    traffic(store, now)
    first = look_at(store, begun, now + 1.5 * HOUR)
    assert first.decision == "advance", first.reasons
    assert current_routing(store).variants[0].share == 0.5
    traffic(store, now + 1.5 * HOUR, hours=2.5, number=4_000, seed=1)
    last = take_look(store, begun, now + 4 * HOUR)
    assert last.decision == "promote", last.reasons
    move = act_on(store, last, now + 4 * HOUR)
    assert (move.champion, move.previous) == (NEW, OLD)
    assert waiting_move(store) == move
    release = store.latest(Release)
    assert (release.action, release.look_id) == ("promote", last.id)
    assert serving_champion(store).version == NEW
    assert running_rollout(store) is None
    assert outcome(store, begun) == "promoted"
    assert [look.number for look in looks_of(store, begun)] == [1, 2]


def test_a_promotion_moves_the_alias(store, tracker, now, begun):
    for name in ("first", "second"):
        tracker.register_base(name, digest=name)
    traffic(store, now)
    look_at(store, begun, now + 1.5 * HOUR)
    traffic(store, now + 1.5 * HOUR, hours=2.5, number=4_000, seed=1)
    last = take_look(store, begun, now + 4 * HOUR)
    assert follow(store, tracker, act_on(store, last, now + 4 * HOUR), now + 4 * HOUR)
    assert tracker.champion().reference == NEW


def test_harm_aborts_at_any_time_and_everybody_has_the_champion(store, now, begun):
    traffic(store, now, hours=0.5, number=500, down=HURT)
    look = look_at(store, begun, now + 0.5 * HOUR)
    assert look.decision == "abort"
    assert "thumbs down" in look.reasons[0]
    assert [variant.version for variant in current_routing(store).variants] == [OLD]
    assert outcome(store, begun) == "aborted"
    assert serving_champion(store).version == OLD
    assert store.latest(Release).action == "start"  # the champion never changed


def test_an_abort_is_one_alert_that_says_what_how_sure_and_what_to_do(store, now, begun):
    traffic(store, now, hours=0.5, number=500, down=HURT)
    look = look_at(store, begun, now + 0.5 * HOUR)
    act_on(store, look, now + 0.6 * HOUR)
    (alert,) = store.records(AlertEvent)
    assert (alert.kind, alert.signal, alert.model_version) == ("rollout", "thumbs down", NEW)
    assert alert.lower < 0.6 < alert.upper  # what `HURT` says
    assert alert.expected == pytest.approx(0.1, abs=0.04)
    assert "aborted at 20% of users: harm" in alert.message
    assert "in at most 4% of rollouts" in alert.certainty
    assert alert.action.startswith(f"Everybody has {OLD} again")


def test_failures_of_a_few_users_abort_before_any_rate_is_read(store, now, begun):
    traffic(store, now, hours=0.2, number=60, failed={"challenger": 1.0})
    look = look_at(store, begun, now + 0.3 * HOUR)
    assert look.decision == "abort"
    assert look.reasons[0].startswith("harm: users with failed answers have the challenger")
    assert all(readout.difference is None for readout in look.readouts)


def test_a_broken_assignment_aborts_before_any_read_out(store, now, begun):
    traffic(store, now, number=2_000, lost={"challenger": 0.6}, down=HURT)
    look = look_at(store, begun, now + 1.5 * HOUR)
    assert look.decision == "abort"
    assert look.reasons[0].startswith("the assignment is broken")
    assert look.readouts == ()
    (alert,) = store.records(AlertEvent)
    assert (alert.signal, alert.expected) == ("sample ratio", 0.2)
    assert alert.upper < 0.2


def test_a_user_in_both_arms_is_a_broken_assignment(store, now, begun):
    routing = current_routing(store)
    traffic(store, now, hours=0.5, number=300)
    moved = next(
        f"user-{n}" for n in range(400) if routing.choose(f"user-{n}").label == "challenger"
    )
    traffic(store, now + 0.5 * HOUR, hours=0.5, number=2_000, seed=1, arms={moved: "champion"})
    look = look_at(store, begun, now + 1.2 * HOUR)
    assert look.decision == "abort"
    assert "1 user changed arms" in look.reasons[0]


def test_time_and_sample_are_both_asked_for(store, now, begun):
    traffic(store, now, hours=0.4)
    soon = look_at(store, begun, now + 0.5 * HOUR)
    assert soon.decision == "wait"
    assert any("of 1 hours in this stage" in reason for reason in soon.reasons)
    late = look_at(store, begun, now + 1.5 * HOUR)
    assert late.decision == "advance"


def test_few_users_make_it_wait(store, now, begun):
    traffic(store, now, users=20, number=200)
    look = look_at(store, begun, now + 1.5 * HOUR)
    assert look.decision == "wait"
    assert any("too few to trust the assignment" in reason for reason in look.reasons)


def test_no_traffic_is_no_good_news(store, now, begun):
    look = look_at(store, begun, now + 3 * HOUR)
    assert look.decision == "wait"
    assert look.interactions == 0
    assert any("so nothing is shown of it" in reason for reason in look.reasons)
    assert not any("for 6 hours" in reason for reason in look.reasons)  # it runs for three


def test_a_first_look_says_that_answers_are_too_young_and_not_that_none_came(store, now, begun):
    traffic(store, now, hours=0.05)
    minutes = begun.plan.lag_seconds / 60  # five; what came within three is too young after four
    look = look_at(store, begun, now + timedelta(minutes=4))
    assert (look.decision, look.interactions) == ("wait", 0)
    silent = [reason for reason in look.reasons if reason.startswith("no answer of the")]
    assert len(silent) == 2
    assert all(f"yet that is {minutes:g} minutes old" in reason for reason in silent)


def test_an_arm_that_fell_silent_stops_what_was_good(store, now, begun):
    traffic(store, now)
    look = look_at(store, begun, now + 9 * HOUR)  # nothing came for over six hours
    assert look.decision == "wait"
    assert sum("so nothing is shown of it" in reason for reason in look.reasons) == 2


def test_thumbs_that_the_challengers_users_cannot_give_are_no_good_news(store, now, begun):
    routing = current_routing(store)
    traffic(store, now, thumbs=0.0)  # regenerations are reported, thumbs are not
    assert routing.experiment == begun.id
    look = look_at(store, begun, now + 1.5 * HOUR)
    assert look.decision == "wait"
    assert any(reason.startswith("thumbs down: nothing is known") for reason in look.reasons)


def test_without_a_verdict_in_time_the_champion_has_everybody_back(store, now):
    released(store, now)
    plan = PLAN.model_copy(update={"maximum_days": 1.0})
    rollout = start_rollout(store, NEW_VARIANT, plan, now=now)
    traffic(store, now, hours=24, number=300, users=20)
    look = look_at(store, rollout, now + 24.1 * HOUR)
    assert look.decision == "expire"
    assert look.reasons[0] == "no verdict within 1 days"
    assert outcome(store, rollout) == "expired"
    assert [variant.version for variant in current_routing(store).variants] == [OLD]


@pytest.mark.slow
def test_a_release_that_must_improve_is_not_promoted_for_being_no_worse(store, now):
    released(store, now)
    plan = PLAN.model_copy(update={"stages": PLAN.stages[1:], "must_improve": True})
    rollout = start_rollout(store, NEW_VARIANT, plan, now=now)
    traffic(store, now, hours=2.5, number=4_000)
    look = look_at(store, rollout, now + 2.5 * HOUR)
    assert (look.decision, look.reasons) == ("wait", ("thumbs down are not shown to be fewer",))
    traffic(store, now + 2.5 * HOUR, hours=2.0, number=4_000, seed=2, down={"challenger": 0.0})
    assert look_at(store, rollout, now + 5 * HOUR).decision == "promote"


# Once, and in order -------------------------------------------------------------------------------


def test_the_same_look_twice_is_the_same_stored_decision(store, now, begun):
    traffic(store, now)
    moment = now + 1.5 * HOUR
    look = take_look(store, begun, moment)
    traffic(store, now, number=2_000, seed=9, down=HURT)  # comes too late for this look
    assert take_look(store, begun, moment + timedelta(seconds=20)) == look
    assert store.records(RolloutLook) == (look,)
    assert last_look(store, begun) == look


def test_the_same_counts_give_the_same_decision(now, begun, store):
    import numpy as np

    empty = np.zeros((0, 1, 2, len(SIGNAL_NAMES)), int)
    tally = Tally(("champion", "challenger"), empty, empty, empty[..., 0] > 0, 0, (None, None))
    once, again = (judge(begun, tally, starts=[now], until=now + HOUR) for _ in range(2))
    assert once == again
    assert once.decision == "wait"


def test_acting_twice_advances_once(store, now, begun):
    traffic(store, now)
    look = take_look(store, begun, now + 1.5 * HOUR)
    for seconds in (0, 5):
        act_on(store, look, now + 1.5 * HOUR + timedelta(seconds=seconds))
    staged = [item for item in store.records(Routing) if item.experiment == begun.id]
    assert [item.variants[0].share for item in staged] == [0.2, 0.5]


def test_a_decision_that_was_stored_and_not_acted_on_is_acted_on_later(store, now, begun):
    traffic(store, now)
    look = take_look(store, begun, now + 1.5 * HOUR)
    assert current_routing(store).variants[0].share == 0.2  # killed before the deed
    act_on(store, last_look(store, begun), now + 2 * HOUR)
    assert current_routing(store).variants[0].share == 0.5
    assert look.decision == "advance"


def test_who_had_the_challenger_before_a_stage_has_it_after(store, now, begun):
    before = current_routing(store)
    traffic(store, now)
    look_at(store, begun, now + 1.5 * HOUR)
    after = current_routing(store)
    for number in range(2_000):
        if before.choose(f"u{number}").version == NEW:
            assert after.choose(f"u{number}").version == NEW


# A person's stop ----------------------------------------------------------------------------------


def test_a_persons_stop_is_final(store, now, begun):
    traffic(store, now)
    look = take_look(store, begun, now + 1.5 * HOUR)  # decided to advance, not acted on yet
    assert stop_rollout(store, by="ann", now=now + 1.6 * HOUR, note="it swears") == begun
    assert act_on(store, look, now + 1.7 * HOUR) is None
    assert [variant.version for variant in current_routing(store).variants] == [OLD]
    with pytest.raises(ConflictError, match="has ended"):
        take_look(store, begun, now + 2 * HOUR)
    with pytest.raises(InvalidInputError, match="a person's stop is final"):
        start_rollout(store, NEW_VARIANT, PLAN, now=now + 3 * HOUR)
    assert outcome(store, begun) == "stopped"
    assert store.get(RolloutStop, begun.id).note == "it swears"


def test_what_an_automation_stopped_may_be_tried_again(store, now, begun):
    stop_rollout(store, by="an automation", now=now + HOUR, person=False)
    assert start_rollout(store, NEW_VARIANT, PLAN, now=now + 2 * HOUR) != begun


def test_nothing_that_runs_is_nothing_to_stop(store, now):
    assert stop_rollout(store, by="ann", now=now) is None


def test_a_second_rollout_draws_its_users_anew(store, now, begun):
    first = current_routing(store)
    stop_rollout(store, by="an automation", now=now + HOUR, person=False)
    start_rollout(store, NEW_VARIANT, PLAN, now=now + 2 * HOUR)
    second = current_routing(store)
    users = [f"u{number}" for number in range(4_000)]
    both = sum(
        first.choose(user).version == NEW and second.choose(user).version == NEW for user in users
    )
    assert abs(both / 4_000 - 0.04) < 0.013  # 0.2 squared, four standard errors


# The sample ratio before the promotion ------------------------------------------------------------


@pytest.mark.parametrize(
    ("users", "decision"),
    [((45_489, 44_700), "abort"), ((44_700, 45_489), "abort"), ((45_300, 44_700), "promote")],
)
def test_a_challenger_that_lost_a_few_users_is_not_promoted(store, now, users, decision):
    released(store, now)
    plan = RolloutPlan(stages=(RolloutStage(share=0.5, hours=0.0),), fresh_hours=48.0)
    rollout = start_rollout(store, NEW_VARIANT, plan, now=now)
    tally = dataclasses.replace(met(*users, arms=("champion", "challenger")), latest=(now, now))
    look = judge(rollout, tally, starts=[now], until=now + HOUR)
    assert look.decision == decision, look.reasons
    assert look.sample_ratio.final_level == 0.01
    if decision == "abort":
        assert "chi-square test p = 0.0086, below the level of 0.01" in look.reasons[0]


def test_stages_that_begin_after_the_clock_was_set_back_count_in_their_order(store, now, begun):
    second = begun.created_at - HOUR
    routing = current_routing(store).model_copy(update={"id": "second", "created_at": second})
    store.append(routing)
    assert stage_starts(store, begun) == (begun.created_at, second)
