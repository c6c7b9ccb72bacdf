"""The time-line is told from the records alone, in order."""

from datetime import UTC, datetime, timedelta

import pytest

from ratchet.deploy.routing import switch
from ratchet.records import (
    FEEDBACK,
    AlertEvent,
    Delivery,
    Interaction,
    Message,
    Release,
    Rollout,
    RolloutLook,
    RolloutStop,
    Routing,
    RoutingFollowed,
    SampleRatio,
    Thumbs,
    Variant,
    VariantTest,
    VariantTestEnd,
)
from ratchet.store import EventStore
from ratchet.views.text.timeline import moments_between, timeline_text
from tests.views.text.test_rollouts import PLAN, ROLLOUT

AT = datetime(2026, 11, 24, 9, tzinfo=UTC)
GOOD, BAD = "m/1", "m/2"


def at(seconds):
    return AT + timedelta(seconds=seconds)


@pytest.fixture
def store(tmp_path):
    made = EventStore.open(f"sqlite:///{tmp_path / 'store.db'}")
    yield made
    made.close()


def answer(store, key, version, seconds, thumb=None):
    store.add_interactions(
        [
            Interaction(
                id=key, session_id=key, user_id="u", created_at=at(seconds), model_version=version,
                messages=(Message(role="user", content="x"),), response="y",
            )
        ]
    )  # fmt: skip
    if thumb:
        store.add_feedback(
            [Thumbs(id=f"t{key}", interaction_id=key, created_at=at(seconds + 3), value=thumb)]
        )


def release(store, key, action, champion, previous, seconds, **fields):
    made = Release(
        id=key, created_at=at(seconds), action=action, champion=champion, previous=previous,
        **fields,
    )  # fmt: skip
    switch(store, made, by="test", told=True)
    return store.latest(Routing)


def alert(key, change, seconds):
    return AlertEvent(
        id=key, alert_id="abcdef123456", created_at=at(seconds), change=change, kind="board",
        severity="critical", model_version=BAD, signal="thumbs_down", segment="shop",
        cluster="parcel, refund", value=0.6, lower=0.5, upper=0.7, expected=0.1, observations=90,
        certainty="at most once in 30 days", message="thumbs that are\ndown 60 %",
        action="roll back to m/1",
    )  # fmt: skip


@pytest.fixture
def told(store):
    """A bad release by hand at 60 s, noticed at 100 s, rolled back at 110 s, followed at 111 s."""
    release(store, "a", "start", GOOD, None, 0)
    for number in range(5):
        answer(store, f"g{number}", GOOD, 10 * number, "up")
    release(store, "b", "moved outside Ratchet", BAD, GOOD, 60)
    answer(store, "b0", BAD, 61, "up")
    answer(store, "b1", BAD, 70, "down")
    answer(store, "b2", BAD, 110.5)
    store.append(alert("e", "opened", 100))
    store.append(
        Delivery(id="d", created_at=at(101), event_id="e", channel="prefect", delivered=True)
    )
    back = release(store, "c", "rollback", GOOD, None, 110, by="an automation", note="alert\nabc")
    for process, seconds in (("host:1", 110.4), ("host:2", 111.0), ("host:3", 130.0)):
        store.append(
            RoutingFollowed(id=process, created_at=at(seconds), routing_id=back.id, process=process)
        )
    return moments_between(store, since=at(0), until=at(3_600))


def test_a_bad_release_is_told_from_its_first_answer_to_the_effect_of_its_rollback(told):
    assert [(moment.at, moment.what) for moment in told] == [
        (at(0), "release"), (at(0), "users"), (at(60), "release"), (at(61), "users"),
        (at(73), "users"), (at(100), "alert"), (at(101), "told"), (at(110), "rollback"),
        (at(110.5), "effect"), (at(111), "effect"),
    ]  # fmt: skip
    text = timeline_text(told)
    lines = text.splitlines()
    assert lines[0] == "2026-11-24 (UTC)"
    assert "09:01:00  release   m/2 was made the champion by hand, m/1 is kept for rollback" in text
    assert "first bad feedback on m/2: thumbs down" in text
    assert "thumbs down of m/2 in segment shop, mostly about parcel, refund" in text
    assert "thumbs that are down 60 %" in text
    assert "m/1 is the champion again by an automation" in text
    assert "why: alert abc" in text
    assert "last question that m/2 answered, 0.5 s after the switch" in text
    # the third process was started later
    assert "all 2 gateway processes follow, 1.0 s after the switch" in text


@pytest.mark.parametrize(
    ("feedback", "words"),
    [
        ({"kind": "stars", "value": 2}, "2 of 5 stars"),
        ({"kind": "stars", "value": 3}, None),
        ({"kind": "task_completed", "value": False}, "the task was not done"),
        ({"kind": "regenerate", "value": True}, "asked for another answer"),
        ({"kind": "regenerate", "value": False}, None),
        ({"kind": "correction", "value": "so"}, "the user corrected it, 'so'"),
        ({"kind": "safety_violation", "value": True}, "found unsafe, 'report'"),
        ({"kind": "safety_violation", "value": False}, None),  # checked and found safe
        ({"kind": "copy", "value": False}, None),  # says little alone
        ({"kind": "judge_score", "value": 0.1, "judge_version": "j/1"}, None),  # no user said so
        ({"kind": "dimension", "value": 1, "name": "tone"}, None),
    ],
)
def test_feedback_is_told_as_bad_where_it_says_so_by_itself(store, feedback, words):
    release(store, "a", "start", GOOD, None, 0)
    answer(store, "g", GOOD, 1)
    event = {"id": "f", "interaction_id": "g", "created_at": at(2)} | feedback
    store.add_feedback([FEEDBACK.validate_python(event)])
    found = [moment.text for moment in moments_between(store, since=at(0), until=at(10))]
    bad = [text for text in found if text.startswith("first bad feedback")]
    assert bad == ([] if words is None else [f"first bad feedback on m/1: {words}"])


def test_each_version_that_failed_is_told_with_how_often_since_when_and_why(store):
    release(store, "r1", "promote", BAD, None, 0)
    for place, (version, error) in enumerate(
        [(BAD, "HTTP 404:\nno such model")] * 3
        + [(BAD, "timed out"), (BAD, "HTTP 401: no"), (BAD, "HTTP 500: no")]
        + [(GOOD, "HTTP 503: later"), (GOOD, None)]
    ):
        failed = Interaction(
            id=f"f{place}", session_id="s", user_id="u", created_at=at(10 + place),
            model_version=version, messages=(Message(role="user", content="x"),), response="",
            error=error,
        )  # fmt: skip
        store.add_interactions([failed])
    told = moments_between(store, since=at(0), until=at(3_600))
    failures = [(m.at, m.text, m.more) for m in told if m.what == "failed"]
    assert failures == [
        (
            at(10),
            "failed attempts of m/2: 6, the last at 2026-11-24 09:00:15",
            ("3 × HTTP 404: no such model", "1 × HTTP 401: no", "1 × HTTP 500: no",
             "other reasons: 1"),
        ),
        (
            at(16),
            "failed attempts of m/1: 1, the last at 2026-11-24 09:00:16",
            ("1 × HTTP 503: later",),
        ),
    ]  # fmt: skip
    # an attempt that failed is no first answer
    assert not any("first answer of m/2" in moment.text for moment in told)


def test_only_what_lies_in_the_time_asked_for_is_told(store, told):
    found = moments_between(store, since=at(90), until=at(105))
    assert [moment.what for moment in found] == ["alert", "told"]


def test_nothing_is_said_to_have_happened_where_nothing_did(store):
    found = moments_between(store, since=at(0), until=at(10))
    assert found == ()
    assert "nothing happened" in timeline_text(found)


def test_a_version_that_was_there_before_is_not_new_to_users(store, told):
    assert sum("first answer of m/1" in moment.text for moment in told) == 1


def test_rollouts_and_tests_of_variants_are_told_with_who_ended_them(store):
    store.append(ROLLOUT)
    ratio = SampleRatio(users={}, log_evidence=0, log_threshold=4.6, moved=0, ready=False)
    for number, decision in enumerate(("wait", "abort"), start=1):
        store.append(
            RolloutLook(
                id=f"l{number}", created_at=at(60 * number), rollout_id="r", model_version=BAD,
                number=number, until=at(0), stage=1, share=0.01, decision=decision,
                reasons=("harm:\nthumbs down",), sample_ratio=ratio, readouts=(), interactions=3,
            )
        )  # fmt: skip
    store.append(RolloutStop(id="r", created_at=at(180), by="ann", person=True, note="it swears"))
    arms = (Variant(version=BAD, share=0.5, name="new"), Variant(version=GOOD, share=0.5))
    test = VariantTest(id="t", created_at=at(240), name="tone", variants=arms, signals=PLAN.signals)
    store.append(test)
    store.append(VariantTestEnd(id="t", created_at=at(300), by="bob", winner="new"))
    assert isinstance(ROLLOUT, Rollout)
    assert [moment.text for moment in moments_between(store, since=at(0), until=at(999))] == [
        "rollout of m/2 begins at 1% of users",
        "look 2 at m/2: abort, everybody has the champion",
        "rollout of m/2 is stopped by ann",
        "test of variants tone begins: new 50%, m/1 50%",
        "test of variants tone is ended by bob: everybody gets new",
    ]
