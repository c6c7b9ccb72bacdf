from datetime import timedelta

import pytest

from ratchet.deploy.approval import say
from ratchet.deploy.promotion import (
    adopt_champion,
    apply_decision,
    establish_champion,
    rollback,
)
from ratchet.deploy.rollout.canary import begin_decided
from ratchet.deploy.routing import serving_champion, switch
from ratchet.errors import InvalidInputError, TrackingError
from ratchet.records import Release, RolloutPlan
from ratchet.tracking import Tracker
from tests.deploy.gate.gated import POLICY, decided_on, scores

LATER = timedelta(minutes=1)


# Acting on a decision, with a real registry and a real store --------------------------------------


@pytest.fixture
def base(tracker):
    return tracker.register_base("tiny", "digest-base")


@pytest.fixture
def challenger(tracker, base, tmp_path):
    return register(tracker, tmp_path, "challenger")


def register(tracker, folder, name):
    adapter = folder / name
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with tracker.run("test", key=name, name=name, tags={}) as run:
        source = run.folder(adapter, "adapter")
    return tracker.register_adapter(run.run_id, source, f"digest-{name}")


def decided(verdict, champion, challenger, now):
    cells = {"promote": (200, 0, 60, 40), "reject": (200, 60, 0, 40)}[verdict]
    decision = decided_on(scores(*cells), champion=champion, challenger=challenger, now=now)
    assert decision.verdict == verdict
    return decision


def aliases(tracker):
    champion, previous = tracker.champion(), tracker.previous()
    return champion and champion.reference, previous and previous.reference


def test_the_base_model_is_the_first_champion_and_that_is_recorded_once(store, tracker, base, now):
    for _ in range(2):
        assert establish_champion(store, tracker, lambda: base, now) == base
    (release,) = store.records(Release)
    assert (release.action, release.champion, release.previous) == ("start", base.reference, None)


def test_promotion_moves_the_aliases_once(store, tracker, base, challenger, now):
    establish_champion(store, tracker, lambda: base, now)
    decision = decided("promote", base, challenger, now)
    release = apply_decision(store, tracker, decision, now + LATER)
    assert release.action == "promote"
    assert release.decision_id == decision.id
    assert aliases(tracker) == (challenger.reference, base.reference)
    written = store.records(Release)
    assert apply_decision(store, tracker, decision, now + 2 * LATER) == release
    assert aliases(tracker) == (challenger.reference, base.reference)
    assert store.records(Release) == written


def test_a_rejected_challenger_is_tagged_and_moves_nothing(store, tracker, base, challenger, now):
    establish_champion(store, tracker, lambda: base, now)
    decision = decided("reject", base, challenger, now)
    assert apply_decision(store, tracker, decision, now) is None
    assert aliases(tracker) == (base.reference, None)
    tags = tracker._client.get_model_version(tracker.model_name, challenger.version).tags
    assert tags["ratchet.verdict"] == "reject"
    assert tags["ratchet.decision"] == decision.id


def test_rollback_restores_the_previous_version_and_is_recorded(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, lambda: base, now)
    apply_decision(store, tracker, decided("promote", base, challenger, now), now + LATER)
    release = rollback(store, tracker, now + 2 * LATER)
    assert (release.action, release.champion) == ("rollback", base.reference)
    assert aliases(tracker) == (base.reference, None)
    assert store.latest(Release) == release
    with pytest.raises(TrackingError, match="needs a version with the alias 'previous'"):
        rollback(store, tracker, now + 3 * LATER)
    assert aliases(tracker) == (base.reference, None)


def test_a_decision_does_not_promote_again_after_a_rollback(store, tracker, base, challenger, now):
    establish_champion(store, tracker, lambda: base, now)
    decision = decided("promote", base, challenger, now)
    apply_decision(store, tracker, decision, now + LATER)
    rollback(store, tracker, now + 2 * LATER)
    apply_decision(store, tracker, decision, now + 3 * LATER)
    assert aliases(tracker) == (base.reference, None)


@pytest.mark.parametrize("back", [timedelta(minutes=10), timedelta(days=400)])
def test_a_rollback_after_the_clock_was_set_back_is_not_undone_by_the_decision_before_it(
    store, tracker, base, challenger, now, back
):
    establish_champion(store, tracker, lambda: base, now)
    decision = decided("promote", base, challenger, now)
    store.append(decision)
    tracker.move_champion(challenger.reference, base.reference)  # killed before the record
    rollback(store, tracker, now - back)
    assert apply_decision(store, tracker, decision, now - back + LATER) is None
    assert aliases(tracker) == (base.reference, None)


def test_a_rollback_before_the_decision_is_no_obstacle_though_its_clock_was_ahead(
    store, tracker, base, challenger, tmp_path, now
):
    establish_champion(store, tracker, lambda: base, now)
    worse = register(tracker, tmp_path, "worse")
    first = decided("promote", base, worse, now)
    store.append(first)
    apply_decision(store, tracker, first, now)
    rollback(store, tracker, now + timedelta(days=30))
    decision = decided("promote", base, challenger, now + LATER)
    store.append(decision)
    assert apply_decision(store, tracker, decision, now + 2 * LATER) is not None
    assert aliases(tracker)[0] == challenger.reference


def test_a_promotion_that_was_cut_short_and_rolled_back_is_not_made_again(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, lambda: base, now)
    decision = decided("promote", base, challenger, now)
    tracker.move_champion(challenger.reference, base.reference)  # killed before the record
    rollback(store, tracker, now + LATER)
    for number in range(2, 9):
        moved = Release(
            id=f"r{number}", created_at=now + number * LATER, action="moved outside Ratchet",
            champion=base.reference, previous=None,
        )  # fmt: skip
        store.append(moved)
    assert apply_decision(store, tracker, decision, now + 10 * LATER) is None
    assert aliases(tracker) == (base.reference, None)


def test_a_promotion_that_was_cut_short_before_its_record_is_finished(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, lambda: base, now)
    decision = decided("promote", base, challenger, now)
    tracker.move_champion(challenger.reference, base.reference)
    release = apply_decision(store, tracker, decision, now + LATER)
    assert aliases(tracker) == (challenger.reference, base.reference)
    assert store.latest(Release) == release


def test_the_next_start_finishes_a_promotion_that_was_cut_short_instead_of_calling_it_foreign(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, lambda: base, now)
    decision = decided("promote", base, challenger, now)
    store.append(decision)
    tracker.move_champion(challenger.reference, None)  # killed between the two aliases
    assert (
        establish_champion(store, tracker, lambda: base, now + LATER).reference
        == challenger.reference
    )
    release = store.latest(Release)
    assert (release.action, release.decision_id) == ("promote", decision.id)
    assert aliases(tracker) == (challenger.reference, base.reference)


def test_a_decision_over_a_champion_that_was_replaced_since_promotes_nothing(
    store, tracker, base, challenger, tmp_path, now
):
    establish_champion(store, tracker, lambda: base, now)
    decision = decided("promote", base, challenger, now)
    other = register(tracker, tmp_path, "other")
    tracker.move_champion(other.reference, base.reference)
    assert apply_decision(store, tracker, decision, now + LATER) is None
    assert aliases(tracker) == (other.reference, base.reference)


def test_a_rollback_with_nothing_promoted_is_refused(store, tracker, base, now):
    for established in (False, True):
        if established:
            establish_champion(store, tracker, lambda: base, now)
        with pytest.raises(TrackingError, match="got none"):
            rollback(store, tracker, now)
    assert [release.action for release in store.records(Release)] == ["start"]


def test_an_alias_that_was_moved_by_hand_is_noticed_and_obeyed(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, lambda: base, now)
    tracker.move_champion(challenger.reference, base.reference)
    assert (
        establish_champion(store, tracker, lambda: base, now + LATER).reference
        == challenger.reference
    )
    release = store.latest(Release)
    assert release.action == "moved outside Ratchet"
    assert (release.champion, release.previous) == (challenger.reference, base.reference)
    establish_champion(store, tracker, lambda: base, now + 2 * LATER)
    assert len(store.records(Release)) == 2


def test_a_champion_that_was_chosen_by_hand_is_served_without_waiting_for_a_cycle(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, lambda: base, now)
    assert adopt_champion(store, tracker, now) is None
    # as in MLflow's pages: the one alias is moved, and nothing else
    tracker._client.set_registered_model_alias("support-router", "champion", challenger.version)
    release = adopt_champion(store, tracker, now + LATER)
    assert (release.champion, release.previous) == (challenger.reference, base.reference)
    assert aliases(tracker) == (challenger.reference, base.reference)
    assert serving_champion(store).version == challenger.reference
    assert adopt_champion(store, tracker, now + 2 * LATER) is None
    assert rollback(store, tracker, now + 3 * LATER).champion == base.reference


def test_a_switch_that_the_registry_was_not_told_of_is_no_choice_by_hand(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, lambda: base, now)
    key = {"champion": challenger.reference, "previous": base.reference}
    switch(store, Release(id="x", created_at=now, action="promote", **key), by="test")
    assert adopt_champion(store, tracker, now + LATER) is None
    assert serving_champion(store).version == challenger.reference


def test_a_promotion_under_way_is_no_choice_by_hand(store, tracker, base, challenger, now):
    establish_champion(store, tracker, lambda: base, now)
    store.append(decided("promote", base, challenger, now))
    tracker.move_champion(challenger.reference, base.reference)  # and then it was cut short
    assert adopt_champion(store, tracker, now + LATER) is None
    assert store.latest(Release).action == "start"


def test_with_the_registry_down_nothing_is_adopted(store, tracker, base, now, tmp_path):
    establish_champion(store, tracker, lambda: base, now)
    nowhere = Tracker("http://127.0.0.1:9", artifacts=tmp_path / "a", model_name="support-router")
    assert adopt_champion(store, nowhere, now + LATER) is None


def test_what_goes_to_users_by_stages_is_nobodys_champion_yet(
    store, tracker, base, challenger, now
):
    establish_champion(store, tracker, lambda: base, now)
    decision = decided("promote", base, challenger, now)
    staged = decision.model_copy(update={"rollout": RolloutPlan()})
    store.append(staged)
    assert apply_decision(store, tracker, staged, now) is None
    assert aliases(tracker)[0] == base.reference
    assert begin_decided(store, decision, now=now) is None  # it asks for no stages


def test_no_rollout_begins_from_another_champion_than_the_one_compared_with(
    store, tracker, base, challenger, tmp_path, now
):
    establish_champion(store, tracker, lambda: base, now)
    decision = decided("promote", base, challenger, now)
    other = register(tracker, tmp_path, "other")
    tracker.move_champion(other.reference, base.reference)
    adopt_champion(store, tracker, now + LATER)
    staged = decision.model_copy(update={"rollout": RolloutPlan()})
    with pytest.raises(InvalidInputError, match="the champion that the gate compared with"):
        begin_decided(store, staged, now=now + LATER)


ASKS = POLICY.model_copy(update={"approval": "always"})


@pytest.mark.parametrize(("approved", "expected"), [(True, "2"), (False, "1")])
def test_a_promotion_that_waits_moves_nothing_before_a_person_approved_it(
    store, tracker, base, challenger, now, approved, expected
):
    establish_champion(store, tracker, lambda: base, now)
    decision = decided_on(
        scores(200, 0, 60, 40), ASKS, champion=base, challenger=challenger, now=now
    )
    store.append(decision)
    assert apply_decision(store, tracker, decision, now) is None
    tags = tracker._client.get_model_version(tracker.model_name, challenger.version).tags
    assert tags["ratchet.approval"] == "waiting"
    assert establish_champion(store, tracker, lambda: base, now + LATER) == base
    say(store, decision, approved=approved, by="ann", reason="why", via="command", now=now + LATER)
    release = apply_decision(store, tracker, decision, now + 2 * LATER)
    assert (release is not None) == approved
    assert tracker.champion().version == expected
