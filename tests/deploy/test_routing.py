from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ratchet.deploy.rollout.canary import start_rollout
from ratchet.deploy.routing import (
    SERVING,
    current_routing,
    follow,
    for_all,
    reconcile,
    running_rollout,
    serving_champion,
    switch,
    waiting_move,
)
from ratchet.records import AliasMove, Release, RolloutStop, Routing, Variant
from ratchet.tracking import Tracker
from tests.deploy.rollout.served import NEW, NEW_VARIANT, OLD, PLAN, released

LATER = timedelta(minutes=1)
USERS = [f"user-{number}" for number in range(20_000)]


def canary(share, experiment="one", now=None):
    return Routing(
        id=f"{experiment}:{share}", created_at=now, experiment=experiment,
        variants=(
            Variant(version=NEW, share=share, name="challenger"),
            Variant(version=OLD, share=1 - share, name="champion"),
        ),
    )  # fmt: skip


@pytest.fixture
def versions(tracker):
    """Two registered versions, the second one champion."""
    good, bad = (tracker.register_base(name, digest=name) for name in ("first", "second"))
    tracker.move_champion(bad.reference, good.reference)
    return good.reference, bad.reference


def release(now, *, champion=NEW, previous=OLD, action="promote", key="r"):
    return Release(
        id=key, created_at=now, action=action, champion=champion, previous=previous
    )  # fmt: skip


# Assignment ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5])
def test_an_arm_has_its_share_of_users(share, now):
    inside = sum(canary(share, now=now).choose(user).version == NEW for user in USERS)
    assert stats.binomtest(inside, len(USERS), share).pvalue > 0.001


def test_users_are_spread_evenly_over_the_whole_line(now):
    tenths = [round(n / 10, 1) for n in range(1, 11)]
    slots = Routing(
        id="r", created_at=now, experiment="line",
        variants=tuple(Variant(version=OLD, share=0.1, name=str(t)) for t in tenths),
    )  # fmt: skip
    found = [slots.choose(user).label for user in USERS]
    counts = [found.count(str(tenth)) for tenth in tenths]
    assert stats.chisquare(counts).pvalue > 0.001


@given(user=st.text(min_size=1, max_size=30), shares=st.tuples(*[st.floats(0.01, 0.99)] * 2))
def test_who_is_in_a_growing_arm_stays_in_it(user, shares):
    from datetime import UTC, datetime

    at = datetime(2026, 1, 1, tzinfo=UTC)
    small, large = sorted(shares)
    if canary(small, now=at).choose(user).version == NEW:
        assert canary(large, now=at).choose(user).version == NEW


def test_two_experiments_draw_their_users_independently(now):
    first, second = canary(0.3, "one", now), canary(0.3, "two", now)
    table = np.zeros((2, 2))
    for user in USERS:
        table[int(first.choose(user).version == NEW), int(second.choose(user).version == NEW)] += 1
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_the_same_user_is_sent_to_the_same_arm_again(now):
    routing = canary(0.25, now=now)
    for user in USERS[:500]:
        assert routing.choose(user) == canary(0.25, now=now).choose(user)


# What is served -----------------------------------------------------------------------------------


def test_before_anything_was_released_nobody_is_sent_anywhere(store):
    assert current_routing(store) is None
    assert serving_champion(store) is None
    assert running_rollout(store) is None


def test_a_release_that_was_made_without_a_routing_counts(store, now):
    store.append(canary(0.25, now=now))
    store.append(release(now + LATER, champion="support-router/9", previous=None))
    routing = current_routing(store)
    assert [variant.version for variant in routing.variants] == ["support-router/9"]
    assert routing.experiment == SERVING


def test_a_switch_writes_routing_release_and_the_wish_for_the_alias_at_once(store, now):
    move = switch(store, release(now), by="test")
    routing = current_routing(store)
    assert (routing.variants[0].version, routing.previous) == (NEW, OLD)
    assert store.latest(Release).champion == NEW
    assert store.records(AliasMove) == (move,)
    assert waiting_move(store) == move


def test_a_switch_made_twice_changes_nothing(store, now):
    for _ in range(2):
        switch(store, release(now), by="test")
    assert [len(store.records(kind)) for kind in (Release, Routing, AliasMove)] == [1, 1, 1]


def test_a_switch_that_fails_half_way_leaves_nothing(store, now, monkeypatch):
    broken = release(now).model_copy(update={"champion": ""})  # no version a routing could take
    with pytest.raises(ValueError, match="at least 1 character"):
        switch(store, broken, by="test")
    assert [len(store.records(kind)) for kind in (Release, Routing, AliasMove)] == [0, 0, 0]


def test_a_switch_ends_what_is_rolled_out(store, now):
    released(store, now)
    rollout = start_rollout(store, NEW_VARIANT, PLAN, now=now)
    switch(store, release(now + LATER, champion="support-router/5"), by="somebody")
    assert running_rollout(store) is None
    stop = store.get(RolloutStop, rollout.id)
    assert (stop.by, stop.person) == ("somebody", False)


def test_the_prompt_of_a_champion_stays_with_it(store, now):
    prompted = Variant(version=NEW, share=1.0, system_prompt="be brief")
    switch(store, release(now), variant=prompted, by="test")
    switch(store, release(now + LATER, key="again", action="moved outside Ratchet"), by="test")
    assert serving_champion(store).system_prompt == "be brief"
    switch(store, release(now + 2 * LATER, key="other", champion=OLD), by="test")
    assert serving_champion(store).system_prompt is None


# The registry -------------------------------------------------------------------------------------


@pytest.fixture
def nowhere(tmp_path):
    """A registry behind an address where nobody listens."""
    return Tracker("http://127.0.0.1:9", artifacts=tmp_path / "a", model_name="support-router")


def test_the_registry_follows_once(store, tracker, versions, now):
    good, bad = versions
    move = switch(store, release(now, champion=good, previous=None), by="test", withdrawn=bad)
    for _ in range(2):
        assert follow(store, tracker, move, now)
    assert tracker.champion().reference == good
    assert tracker.previous() is None
    assert [item.done for item in store.records(AliasMove)] == [False, True]
    assert waiting_move(store) is None
    tags = tracker._client.get_model_version(tracker.model_name, bad.split("/")[1]).tags
    assert "ratchet.rolled_back_at" in tags


def test_a_registry_that_is_down_is_caught_up_with_later(store, tracker, nowhere, versions, now):
    good, _ = versions
    move = switch(store, release(now, champion=good, previous=None), by="test")
    assert not follow(store, nowhere, move, now)
    assert current_routing(store).variants[0].version == good  # served all the same
    assert reconcile(store, nowhere, now) == "waiting"
    assert reconcile(store, tracker, now) == "moved"
    assert tracker.champion().reference == good
    assert reconcile(store, tracker, now) == "nothing to do"


def test_a_wish_that_a_newer_release_overtook_is_not_waited_for(store, tracker, versions, now):
    good, bad = versions
    switch(store, release(now, champion=good, previous=None), by="test")
    told = release(now + LATER, champion=bad, previous=good, key="newer")
    switch(store, told, by="test", told=True)
    assert reconcile(store, tracker, now) == "nothing to do"
    assert tracker.champion().reference == bad


def test_everybody_gets_one_variant(now):
    routing = for_all(
        Variant(version=NEW, share=0.25, name="challenger"),
        previous=OLD,
        reason="",
        key="k",
        now=now,
    )
    assert {routing.choose(user).version for user in USERS[:100]} == {NEW}
    assert routing.variants[0].label == "champion"


# Clocks that are set back -------------------------------------------------------------------------


def test_what_was_written_last_is_served_after_the_clock_was_set_back(store, now):
    released(store, now)
    switch(store, release(now, champion=OLD, previous=None), by="test")
    earlier = now - timedelta(hours=2)  # when the clock was right again
    rollout = start_rollout(store, NEW_VARIANT, PLAN, now=earlier)
    assert running_rollout(store) == rollout
    assert current_routing(store).variants[0].version == NEW
    switch(store, release(earlier, key="later"), by="test")
    assert [variant.version for variant in current_routing(store).variants] == [NEW]
    store.append(release(earlier - LATER, champion=OLD, key="by hand"))  # without a routing
    assert serving_champion(store).version == OLD
