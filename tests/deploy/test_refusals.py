"""What is refused since a version does not answer: the earlier routing stands, and it is told."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from ratchet.deploy.adapters import AdapterShelf
from ratchet.deploy.answering import Answering
from ratchet.deploy.promotion import adopt_champion, apply_decision, establish_champion
from ratchet.deploy.refusals import decision_to_try_again, standing_refusal, words
from ratchet.deploy.rollout.canary import act_on, begin_decided, start_rollout
from ratchet.deploy.rollout.rollback import roll_back
from ratchet.deploy.rollout.variants import start_test
from ratchet.deploy.routing import current_routing, running_rollout
from ratchet.errors import NotAnsweringError
from ratchet.records import (
    AlertEvent,
    Decision,
    Release,
    RolloutLook,
    RoutingRefusal,
    SampleRatio,
    ServedName,
    Variant,
)
from tests.deploy.adapter_files import trained
from tests.deploy.gate.gated import decided_on, scores
from tests.deploy.rollout.served import PLAN, released
from tests.servers.vllm_server import VllmServer

LATER = timedelta(minutes=1)


@pytest.fixture
def server():
    with VllmServer("org/base") as started:
        yield started


@pytest.fixture
def answering(store, tracker, tmp_path, server):
    return Answering(store, lambda: tracker, AdapterShelf(tmp_path / "home"), (server.url,))


@pytest.fixture
def served(store, tracker, now, answering):
    """Users have the base model, under the name that the server has for it."""
    base = tracker.register_base("tiny", "digest-base")
    store.append(ServedName(id="n", created_at=now, version=base.reference, name="org/base"))
    assert establish_champion(store, tracker, lambda: base, now, answering=answering) == base
    return base


@pytest.fixture
def challenger(served, store, tracker, tmp_path):
    """A version whose rank the server takes only once it is started for it."""
    return tracker.version(trained(store, tracker, tmp_path / "home", 2, rank=32))


@pytest.fixture
def decision(store, served, challenger, now):
    made = decided_on(scores(200, 0, 60, 40), champion=served, challenger=challenger, now=now)
    assert made.verdict == "promote"
    store.append(made)
    return made


def changes(store):
    return [(event.change, event.model_version) for event in store.records(AlertEvent)]


# Promotion ----------------------------------------------------------------------------------------


def test_a_promotion_waits_until_the_challenger_answers(
    store, tracker, server, answering, served, challenger, decision, now
):
    before = current_routing(store)
    for minutes in (1, 11):
        at = now + minutes * LATER
        assert apply_decision(store, tracker, decision, at, answering=answering) is None
    assert tracker.champion() == served
    assert current_routing(store) == before
    (refusal,) = store.records(RoutingRefusal)
    assert "LoRA rank 32 is greater than max_lora_rank 16" in refusal.reason
    assert standing_refusal(store) == refusal
    assert f"{challenger.reference} was not promoted since it does not answer" in words(refusal)
    assert changes(store) == [("opened", challenger.reference)]
    (alert,) = store.records(AlertEvent)
    assert f"Everybody still has {served.reference}" in alert.action

    server.max_rank = 64
    release = apply_decision(store, tracker, decision, now + 21 * LATER, answering=answering)
    assert release.champion == tracker.champion().reference == challenger.reference
    assert standing_refusal(store) is None
    assert [change for change, _ in changes(store)] == ["opened", "resolved"]


def test_a_promotion_that_was_interrupted_is_undone_where_its_version_does_not_answer(
    store, tracker, answering, served, challenger, decision, now
):
    tracker.move_champion(challenger.reference, served.reference)
    stands = establish_champion(store, tracker, lambda: served, now + LATER, answering=answering)
    assert stands == tracker.champion() == served
    assert store.latest(Release).champion == served.reference


# An alias moved by hand ---------------------------------------------------------------------------


def test_an_alias_moved_by_hand_to_what_does_not_answer_is_moved_back(
    store, tracker, server, answering, served, challenger, now
):
    tracker.move_champion(challenger.reference, served.reference)
    assert adopt_champion(store, tracker, now + LATER, answering=answering) is None
    assert tracker.champion() == served
    assert tracker.previous() is None
    assert current_routing(store).variants[-1].version == served.reference
    refusal = standing_refusal(store)
    assert (refusal.step, refusal.version) == ("alias", challenger.reference)
    assert changes(store) == [("opened", challenger.reference)]

    server.max_rank = 64
    tracker.move_champion(challenger.reference, served.reference)
    release = adopt_champion(store, tracker, now + 2 * LATER, answering=answering)
    assert release.champion == challenger.reference
    assert [change for change, _ in changes(store)] == ["opened", "resolved"]


def test_a_loop_goes_on_with_the_champion_that_answers(
    store, tracker, answering, served, challenger, now
):
    tracker.move_champion(challenger.reference, None)
    stands = establish_champion(store, tracker, lambda: served, now + LATER, answering=answering)
    assert stands == tracker.champion() == served


def test_a_first_champion_that_does_not_answer_is_refused(store, tracker, answering, now):
    base = tracker.register_base("tiny", "digest-base")
    with pytest.raises(NotAnsweringError, match="does not list 'support-router/1'"):
        establish_champion(store, tracker, lambda: base, now, answering=answering)
    assert store.latest(Release) is None


# Rollouts and tests -------------------------------------------------------------------------------


def test_a_rollout_by_hand_of_what_does_not_exist_is_refused(store, answering, served, now):
    for version in ("support-router/77", "other/77"):
        with pytest.raises(NotAnsweringError, match="it has: org/base"):
            start_rollout(
                store, Variant(version=version, share=1.0), PLAN, now=now, answering=answering
            )
        variant = Variant(version=version, share=0.1)
        with pytest.raises(NotAnsweringError, match=f"got {version}"):
            start_test(store, "t", [variant], now=now, answering=answering)
    assert current_routing(store).variants[0].version == served.reference


def test_a_decided_rollout_begins_once_its_challenger_answers(
    store, tracker, server, answering, served, challenger, now
):
    released(store, now)  # traffic that the plan's signals are seen in
    made = decided_on(scores(200, 0, 60, 40), champion=served, challenger=challenger, now=now)
    staged = made.model_copy(update={"rollout": PLAN})
    store.append(staged)
    assert begin_decided(store, staged, now=now, answering=answering) is None
    assert running_rollout(store) is None
    assert standing_refusal(store).decision_id == store.latest(Decision).id
    server.max_rank = 64
    begun = begin_decided(store, staged, now=now + LATER, answering=answering)
    assert running_rollout(store) == begun
    assert standing_refusal(store) is None


def test_a_decided_rollout_begins_once_its_traffic_shows_what_it_watches(
    store, tracker, server, answering, served, challenger, now
):
    server.max_rank = 64
    made = decided_on(scores(200, 0, 60, 40), champion=served, challenger=challenger, now=now)
    staged = made.model_copy(update={"rollout": PLAN})
    store.append(staged)
    for again in (0.0, 0.1):  # told once
        assert begin_decided(store, staged, now=now + again * LATER, answering=answering) is None
    refusal = standing_refusal(store)
    assert (refusal.step, refusal.decision_id) == ("start", decision_to_try_again(store).id)
    assert words(refusal).startswith(f"{challenger.reference} was not rolled out: a rollout needs")
    assert changes(store) == [("opened", challenger.reference)]
    released(store, now)
    assert begin_decided(store, staged, now=now + LATER, answering=answering) is not None
    assert standing_refusal(store) is None
    assert [change for change, _ in changes(store)] == ["opened", "resolved"]


def test_no_more_users_are_given_to_a_challenger_that_stopped_answering(
    store, server, answering, served, challenger, now
):
    released(store, now)
    server.max_rank = 64
    rollout = start_rollout(
        store, Variant(version=challenger.reference, share=1.0), PLAN, now=now, answering=answering
    )
    look = RolloutLook(
        id="look", created_at=now + LATER, rollout_id=rollout.id, number=1, until=now, stage=1,
        model_version=challenger.reference, share=0.2, decision="advance", reasons=("fine",),
        sample_ratio=SampleRatio(
            users={"champion": 8, "challenger": 2}, log_evidence=0.0, log_threshold=9.0, moved=0,
            ready=True,
        ),
        readouts=(), interactions=0,
    )  # fmt: skip
    store.append(look)
    server.broken.add(challenger.reference)
    assert act_on(store, look, now + LATER, answering=answering) is None
    assert [variant.share for variant in current_routing(store).variants] == [0.2, 0.8]
    assert standing_refusal(store).step == "stage"
    server.broken.clear()
    act_on(store, look, now + 2 * LATER, answering=answering)
    assert [variant.share for variant in current_routing(store).variants] == [0.5, 0.5]
    # harm takes it away from everybody, whatever answers
    server.stop()
    harm = look.model_copy(update={"id": "harm", "stage": 2, "decision": "abort"})
    store.append(harm)
    act_on(store, harm, now + 3 * LATER, answering=answering)
    assert current_routing(store).variants[-1].version == served.reference
    server.start()


# Rollback -----------------------------------------------------------------------------------------


@pytest.fixture
def third(store, tracker, server, answering, served, tmp_path, now):
    """Three champions one after another: the base model, 2 and 3."""
    versions = [trained(store, tracker, tmp_path / "home", number) for number in (2, 3)]
    before = served.reference
    for number, version in enumerate(versions, start=1):
        tracker.move_champion(version, before)
        assert adopt_champion(store, tracker, now + number * LATER, answering=answering)
        before = version
    return versions


def test_a_rollback_goes_to_the_version_before(store, tracker, answering, third, now):
    done = roll_back(
        store, tracker, now=now + 9 * LATER, by="ada", person=True, answering=answering, note="why"
    )
    assert (done.champion, done.note) == (third[0], "why")


def test_a_rollback_prefers_an_earlier_champion_that_answers_and_says_so(
    store, tracker, server, answering, third, served, now
):
    server.broken.add(third[0])
    done = roll_back(
        store, tracker, now=now + 9 * LATER, by="ada", person=True, answering=answering
    )
    assert done.champion == served.reference == tracker.champion().reference
    assert f"{third[0]} does not answer" in done.note
    assert f"{served.reference} does and is the champion" in done.note
    assert store.latest(Release).note == done.note


def test_a_rollback_is_stopped_by_nothing(store, tracker, server, answering, third, now):
    server.stop()
    begun = time.monotonic()
    done = roll_back(
        store, tracker, now=now + 9 * LATER, by="ada", person=True, answering=answering
    )
    assert time.monotonic() - begun < 10.0
    assert done.champion == current_routing(store).variants[-1].version == third[0]
    assert "does not answer" in done.note
    server.start()
