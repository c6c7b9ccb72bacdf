"""Feedback through the gateway: who may give it, what is kept, what happens to the rest."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from ratchet.gateway.access import new_key

EVENTS = [
    ("thumbs", "down"), ("stars", 4), ("comment", "näh \U0001f937"), ("correction", "the other"),
    ("copy", True), ("regenerate", True), ("task_completed", False), ("session_end", 12.5),
    ("safety_violation", True), ("dimension", 2),
]  # fmt: skip


def event(answer, kind="thumbs", value="up", key="f-1", **fields):
    token = {"token": answer["ratchet"]["token"]}
    return (
        {"id": key, "interaction_id": answer["id"], "kind": kind, "value": value} | token | fields
    )


def lock(gateway, *roles):
    """Put a key in place, so that nobody without one may do anything."""
    record, key = new_key("shop", roles or ("ingest",), now=datetime.now(UTC))
    gateway.store.append(record)
    gateway.app.state.gateway.router.refresh()
    return {"authorization": f"Bearer {key}"}


@pytest.fixture
def answer(gateway):
    return gateway.ask()


def test_every_kind_is_kept_singly_and_in_a_batch(gateway, answer):
    events = [event(answer, kind, value, f"f-{n}") for n, (kind, value) in enumerate(EVENTS)]
    events[-1]["name"] = "accuracy"
    for item in events[:4]:
        assert gateway.post("/v1/feedback", item).json() == {"accepted": 1, "rejected": []}
    batch = gateway.post("/v1/feedback", {"events": events[4:]})
    assert batch.json() == {"accepted": len(EVENTS) - 4, "rejected": []}
    gateway.feedback()
    kept = gateway.store.stored_feedback([item["id"] for item in events])
    assert {(e.kind, e.value) for e in kept.values()} == set(EVENTS)


def test_sending_again_changes_nothing(gateway, answer):
    item = event(answer)
    timed = event(answer, "copy", True, "f-2", created_at=datetime.now(UTC).isoformat())
    for _ in range(3):
        assert gateway.post("/v1/feedback", {"events": [item, timed]}).json()["accepted"] == 2
        assert len(gateway.feedback()) == 2
    assert gateway.store.counts()["set_aside"] == 0


def test_other_content_under_the_same_id_is_set_aside_and_the_first_stands(gateway, answer):
    gateway.post("/v1/feedback", event(answer, value="up"))
    gateway.post("/v1/feedback", event(answer, value="down"))
    (kept,) = gateway.feedback()
    assert kept["number"] == 1.0
    (reason,) = gateway.store.set_aside_reasons()
    assert "must not be sent again with different content" in reason


def test_a_user_who_changes_their_mind_has_both_kept_in_order(gateway, answer):
    gateway.post("/v1/feedback", event(answer, value="up", key="a"))
    gateway.post("/v1/feedback", event(answer, value="down", key="b"))
    assert [row["number"] for row in gateway.feedback()] == [1.0, 0.0]


def test_without_a_key_the_token_of_the_answer_decides(gateway, answer):
    key = lock(gateway)
    assert gateway.post("/v1/feedback", event(answer)).status_code == 200
    for token in ("", "wrong", None):
        reply = gateway.post("/v1/feedback", event(answer, token=token, key="x"))
        assert reply.status_code == (401 if token is None else 403), token
    other = gateway.post("/v1/chat/completions", {"model": "m", "messages": [
        {"role": "user", "content": "x"}]}, headers=key).json()  # fmt: skip
    swapped = event(answer, key="y", token=other["ratchet"]["token"])
    assert gateway.post("/v1/feedback", swapped).status_code == 403
    assert len(gateway.feedback()) == 1


def test_a_key_of_the_role_ingest_needs_no_token_and_may_come_early(gateway):
    key = lock(gateway)
    early = {"id": "f", "interaction_id": "from-elsewhere", "kind": "thumbs", "value": "up"}
    assert gateway.post("/v1/feedback", early, headers=key).status_code == 200
    assert gateway.post("/v1/feedback", early | {"id": "g"}).status_code == 401
    gateway.settle()
    assert gateway.store.counts()["thumbs"] == 1


def test_a_key_without_the_role_is_refused(gateway):
    key = lock(gateway, "read")
    early = {"id": "f", "interaction_id": "i", "kind": "thumbs", "value": "up"}
    reply = gateway.post("/v1/feedback", early, headers=key)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "insufficient_role")


def test_a_judges_score_needs_the_role_also_with_a_token(gateway, answer):
    lock(gateway)
    score = event(answer, "judge_score", 1.0, judge_version="j/1")
    assert gateway.post("/v1/feedback", score).status_code == 401


BAD = [
    ({"kind": "thumbs", "value": "sideways"}, "value"),
    ({"kind": "stars", "value": 6}, "value"),
    ({"kind": "stars", "value": True}, "value"),
    ({"kind": "nod", "value": 1}, "kind"),
    ({"kind": "copy", "value": "yes"}, "value"),
    ({"kind": "comment", "value": ""}, "value"),
    ({"kind": "session_end", "value": -1}, "value"),
    ({"kind": "thumbs", "value": "up", "extra": 1}, "extra"),
    ({"kind": "thumbs", "value": "up", "created_at": "2026-01-01T00:00:00"}, "created_at"),
    ({"kind": "thumbs", "value": "up", "created_at": "0001-01-01T00:00:00+14:00"}, "created_at"),
]


def test_a_bad_event_is_one_clear_error_alone_and_a_line_in_a_batch(gateway, answer):
    for fields, named in BAD:
        bad = event(answer) | fields
        reply = gateway.post("/v1/feedback", bad)
        assert reply.status_code == 400
        assert named in reply.json()["error"]["message"]
        batch = gateway.post("/v1/feedback", {"events": [event(answer, key="good"), bad]}).json()
        assert batch["accepted"] == 1
        (rejected,) = batch["rejected"]
        assert (rejected["index"], rejected["id"], rejected["code"]) == (1, "f-1", "invalid")
    assert [row["id"] for row in gateway.feedback()] == ["good"]


NO_BODIES = [
    b"", b"{", b"[]", b"3", b'"x"', b'{"events": {}}', b"\xff\xfe", b'{"events": [], "id": 1}',
    b'{"events": [[]]}', b'{"id": NaN}', b'{"id": "\\ud800"}', b"[" * 100_000,
]  # fmt: skip


def test_a_body_that_is_none_is_one_clear_error(gateway):
    for body in NO_BODIES:
        reply = gateway.post("/v1/feedback", content=body)
        assert reply.status_code == 400, body[:20]
        assert reply.json()["error"]["message"]


def test_late_feedback_is_taken_with_its_time(gateway, answer):
    moment = datetime.now(UTC) - timedelta(days=400)
    gateway.post("/v1/feedback", event(answer, created_at=moment.isoformat()))
    assert [row["created_at"] for row in gateway.feedback()] == [moment]


def test_a_clock_that_is_ahead_gives_the_time_of_arrival(gateway, answer):
    ahead = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
    for _ in range(2):
        gateway.post("/v1/feedback", event(answer, created_at=ahead))
        (kept,) = gateway.feedback()
    assert abs(kept["created_at"] - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_beacon_in_plain_text_is_read_too(gateway, answer):
    import json

    reply = gateway.post(
        "/v1/feedback", content=json.dumps(event(answer)), headers={"content-type": "text/plain"}
    )
    assert reply.status_code == 200


def test_a_correction_that_calls_tools_may_come_as_a_turn_or_as_text(gateway, answer):
    block = '<tool_call>\n{"name": "stop", "arguments": {"now": true}}\n</tool_call>'
    called = {"type": "function", "function": {"name": "stop", "arguments": '{"now": true}'}}
    given = {"role": "assistant", "content": None, "tool_calls": [called]}
    values = (block, given, json.dumps(given))
    for number, value in enumerate(values):
        said = gateway.post("/v1/feedback", event(answer, "correction", value, f"f-{number}"))
        assert said.json() == {"accepted": 1, "rejected": []}
    wrong = gateway.post(
        "/v1/feedback", event(answer, "correction", given | {"role": "user", "content": "x"}, "g")
    )
    assert wrong.status_code == 400
    assert "a turn of the assistant" in wrong.text
    gateway.feedback()
    kept = gateway.store.stored_feedback([f"f-{number}" for number in range(len(values))])
    assert {one.value for one in kept.values()} == {block}
