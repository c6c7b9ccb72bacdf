"""Too many requests, and nobody who answers: what users get then."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from ratchet.gateway.last_resort import LAST_RESORT
from ratchet.improve.curation.config import CurationConfig
from tests.gateway.conftest import routing
from tests.improve.curation.curated_home import WORDS, curated
from tests.servers.mock_backend import MockBackend

CHAT = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
DEAD = "http://127.0.0.1:9"
SORRY = "We cannot answer now. Please write to help@example.org."


def test_beyond_the_queue_a_request_is_refused_at_once_and_may_come_again(serve):
    with MockBackend(delay=1.0) as slow:
        gateway = serve(backend=slow.url, most_waiting=3)
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(gateway.post, "/v1/chat/completions", CHAT) for _ in range(8)]
            replies = [call.result() for call in calls]
        assert sorted(reply.status_code for reply in replies) == [200] * 3 + [503] * 5
        refused = [reply for reply in replies if reply.status_code == 503]
        assert {reply.json()["error"]["code"] for reply in refused} == {"overloaded"}
        assert {reply.headers["retry-after"] for reply in refused} == {"1"}
        gateway.ask()  # the queue is empty again
        assert len(gateway.interactions()) == 4


def test_feedback_and_health_do_not_wait_in_the_queue(serve):
    with MockBackend(delay=1.0) as slow, ThreadPoolExecutor(1) as pool:
        gateway = serve(backend=slow.url, most_waiting=1)
        pending = pool.submit(gateway.ask)
        while not slow.seen:
            pass
        assert gateway.get("/healthz").status_code == 200
        assert gateway.post("/v1/feedback", {"events": []}).status_code == 200
        pending.result()


def test_when_nobody_answers_the_last_resort_does_and_is_recorded_as_what_it_is(serve):
    gateway = serve(backend=DEAD, last_resort=SORRY)
    gateway.store.append(routing(("m/1", 1.0)))
    gateway.app.state.gateway.router.refresh()
    told = gateway.ask()
    assert told["choices"][0]["message"]["content"] == SORRY
    assert told["model"] == LAST_RESORT
    streamed = gateway.post("/v1/chat/completions", CHAT | {"stream": True})
    assert SORRY in streamed.text
    assert streamed.text.endswith("data: [DONE]\n\n")
    kept = [item for item in gateway.interactions() if item.model_version == LAST_RESORT]
    assert [item.response for item in kept] == [SORRY, SORRY]
    assert all("last resort" in item.error for item in kept)
    failed = [item for item in gateway.interactions() if item.model_version == "m/1"]
    assert len(failed) == 2  # the champion's failures are hidden by nothing
    assert all(item.error for item in failed)


def test_the_last_resort_hides_no_outage_from_health(serve):
    gateway = serve(backend=DEAD, last_resort=SORRY)
    for number in range(6):
        gateway.ask(user=f"user-{number}")
    health = gateway.get("/healthz")
    assert (health.status_code, health.json()["status"]) == (503, "degraded")


def rated(gateway, text, value):
    """Ask a question of a user of its own, and rate the answer."""
    answer = gateway.ask(f"question about {text}", user=f"user-{text}")
    event = {
        "id": f"f-{answer['id']}", "interaction_id": answer["id"], "kind": "thumbs",
        "value": value, "token": answer["ratchet"]["token"],
    }  # fmt: skip
    assert gateway.post("/v1/feedback", event).json()["accepted"] == 1
    return answer["id"]


@pytest.mark.parametrize("kind", ["sft", "kto"])
def test_an_answer_of_the_last_resort_is_never_trained_on(serve, mock, kind):
    """Liked or disliked; of the model's own answers, rated alike, there are rows."""
    working, broken = serve(backend=mock.url), serve(backend=DEAD, last_resort=SORRY)
    ratings = [("up", "down")[number % 2 if kind == "kto" else 0] for number in range(12)]
    good = {rated(working, f"{WORDS[n]} {n * 7919}", value) for n, value in enumerate(ratings)}
    for number, value in enumerate(ratings):
        rated(broken, f"{WORDS[-number]} {number * 104729}", value)
    working.settle()
    config = CurationConfig(minimum_examples=1)
    found = curated(working.store, working.settings.home, kind, config, end=datetime.now(UTC))
    rows = found.selection.rows
    assert {row.interaction_id for row in rows} <= good
    assert len(rows) > 5
