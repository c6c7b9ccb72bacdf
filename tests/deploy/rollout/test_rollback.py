import time
from datetime import timedelta

import pytest

from ratchet.deploy.promotion import establish_champion
from ratchet.deploy.rollout.canary import start_rollout, take_look
from ratchet.deploy.rollout.rollback import roll_back
from ratchet.deploy.rollout.variants import start_test
from ratchet.deploy.routing import (
    current_routing,
    reconcile,
    running_rollout,
    serving_champion,
    switch,
)
from ratchet.errors import TrackingError
from ratchet.records import Release, RolloutStop, Variant, VariantTestEnd
from ratchet.tracking import Tracker
from tests.deploy.rollout.served import NEW, NEW_VARIANT, OLD, PLAN, released

LATER = timedelta(minutes=1)


@pytest.fixture
def nowhere(tmp_path):
    return Tracker("http://127.0.0.1:9", artifacts=tmp_path / "a", model_name="support-router")


@pytest.fixture
def promoted(store, tracker, now):
    """Version 2 is the champion after version 1, in store and registry."""
    for name in ("first", "second"):
        tracker.register_base(name, digest=name)
    released(store, now)
    release = Release(
        id="p", created_at=now - timedelta(hours=1), action="promote", champion=NEW, previous=OLD
    )
    switch(store, release, by="test", told=True)
    tracker.move_champion(NEW, OLD)


def undo(store, tracker, now, **changes):
    return roll_back(store, tracker, **({"now": now, "by": "ann", "person": True} | changes))


def test_the_previous_version_is_served_and_champion_in_the_registry(store, tracker, promoted, now):
    done = undo(store, tracker, now)
    assert (done.did, done.version, done.champion) == ("champion replaced", NEW, OLD)
    assert serving_champion(store).version == OLD
    assert tracker.champion().reference == OLD
    assert store.latest(Release).action == "rollback"


def test_it_works_within_five_seconds_while_mlflow_is_down(store, tracker, nowhere, promoted, now):
    began = time.monotonic()
    done = undo(store, nowhere, now)
    assert time.monotonic() - began < 5.0
    assert done.champion == OLD
    assert serving_champion(store).version == OLD
    assert tracker.champion().reference == NEW  # nobody told it yet
    with pytest.raises(TrackingError, match="got none"):
        undo(store, nowhere, now + LATER)  # a second one has nowhere to go
    assert reconcile(store, tracker, now + LATER) == "moved"
    assert tracker.champion().reference == OLD


def test_a_cycle_that_starts_after_a_rollback_without_mlflow_does_not_bring_it_back(
    store, tracker, promoted, now
):
    release = Release(id="b", created_at=now, action="rollback", champion=OLD, previous=None)
    switch(store, release, by="rollback")  # and the registry was not told
    base = tracker.version(OLD)
    assert establish_champion(store, tracker, lambda: base, now + LATER).reference == OLD
    assert store.latest(Release).action == "rollback"


def test_a_rollout_is_what_ends_first_and_the_champion_stays(store, tracker, promoted, now):
    rollout = start_rollout(store, Variant(version="support-router/3", share=1.0), PLAN, now=now)
    done = undo(store, tracker, now + LATER, note="it swears")
    assert (done.did, done.champion) == ("rollout stopped", NEW)
    assert [variant.version for variant in current_routing(store).variants] == [NEW]
    stop = store.get(RolloutStop, rollout.id)
    assert (stop.by, stop.person, stop.note) == ("ann", True, "it swears")
    assert undo(store, tracker, now + 2 * LATER).champion == OLD


def test_a_test_of_variants_ends_first_too(store, tracker, promoted, now):
    test = start_test(store, "t", [Variant(version="support-router/4", share=0.5)], now=now)
    assert undo(store, tracker, now + LATER).did == "test ended"
    assert store.get(VariantTestEnd, test.id).winner is None
    assert serving_champion(store).version == NEW


def test_an_event_about_a_challenger_stops_its_rollout(store, tracker, promoted, now):
    start_rollout(store, Variant(version="support-router/3", share=1.0), PLAN, now=now)
    late = undo(store, tracker, now + LATER, version="support-router/7", person=False)
    assert late.did == "nothing"
    assert running_rollout(store) is not None
    done = undo(store, tracker, now + LATER, version="support-router/3", person=False)
    assert done.did == "rollout stopped"


def test_an_event_about_the_champion_replaces_it_and_ends_the_rollout(
    store, tracker, promoted, now
):
    rollout = start_rollout(store, Variant(version="support-router/3", share=1.0), PLAN, now=now)
    done = undo(store, tracker, now + LATER, version=NEW, person=False)
    assert (done.did, done.champion) == ("champion replaced", OLD)
    assert store.get(RolloutStop, rollout.id).by == "rollback"
    assert running_rollout(store) is None


def test_an_event_that_comes_twice_does_nothing_the_second_time(store, tracker, promoted, now):
    for did in ("champion replaced", "nothing"):
        assert undo(store, tracker, now, version=NEW, person=False).did == did
    assert serving_champion(store).version == OLD


def test_a_prompt_that_was_rolled_out_goes_back_with_it(store, tracker, now):
    for name in ("first", "second"):
        tracker.register_base(name, digest=name)
    tracker.move_champion(OLD, None)
    released(store, now)
    prompted = Variant(version=OLD, share=1.0, system_prompt="be brief")
    rollout = start_rollout(store, prompted, PLAN, now=now)
    look = take_look(store, rollout, now + LATER)
    release = Release(
        id="q", created_at=now + LATER, action="promote", champion=OLD, previous=OLD,
        look_id=look.id,
    )  # fmt: skip
    switch(store, release, variant=prompted, by="test", told=True, ends=False)
    tracker.move_champion(OLD, OLD)
    assert serving_champion(store).system_prompt == "be brief"
    undo(store, tracker, now + 2 * LATER)
    assert serving_champion(store).system_prompt is None
    assert NEW_VARIANT.version != OLD
