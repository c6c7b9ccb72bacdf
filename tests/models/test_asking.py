"""The engine that asks, against a real HTTP server that counts requests and bills them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.errors import ModelError
from ratchet.files.moments import retry_after_seconds
from ratchet.models import Completion, ScriptedModel
from ratchet.models.asking import Asked, Progress, ProgressLog, ask_endpoint, ask_model
from ratchet.models.endpoint import Endpoint, Question, Reply
from ratchet.models.limits import (
    Ledger,
    Limits,
    Pace,
    Tokens,
    backoff_seconds,
    estimate_input_tokens,
)
from ratchet.records import Message
from ratchet.store import EventStore
from tests.servers.judge_endpoint import Answer, JudgeEndpoint, Seen, endpoint_process

KEY = "sk-very-secret-0123456789"
FAST = Limits(concurrency=8, backoff_seconds=0.01)
NOW = datetime(2026, 1, 5, 8, tzinfo=UTC)


def question(number: int | str, schema: dict[str, Any] | None = None) -> Question:
    return Question(f"q{number}", (Message(role="user", content=f"case {number}"),), schema)


def questions(count: int) -> list[Question]:
    return [question(number) for number in range(count)]


class Saved:
    """Keeps replies in order, as a store would."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.calls: list[int] = []

    def __call__(self, replies: Sequence[Reply]) -> None:
        self.calls.append(len(replies))
        self.replies += replies

    @property
    def texts(self) -> dict[str, str]:
        assert len({reply.key for reply in self.replies}) == len(self.replies)
        return {reply.key: reply.text for reply in self.replies}


def ask(
    server: JudgeEndpoint,
    asked: Sequence[Question],
    save: Callable[[Sequence[Reply]], None],
    limits: Limits = FAST,
    endpoint: dict[str, Any] | None = None,
    **options: Any,
) -> Asked:
    described = Endpoint.model_validate({"url": server.url, "model": "judge"} | (endpoint or {}))
    return ask_endpoint(
        asked, described, limits, api_key=options.pop("api_key", KEY), save=save, **options
    )


@pytest.fixture
def saved() -> Saved:
    return Saved()


@pytest.fixture(scope="module")
def shared() -> Iterator[JudgeEndpoint]:
    """One server for the properties, whose behaviour each example sets."""
    with JudgeEndpoint() as server:
        yield server


def by_text(seen: Seen) -> Answer:
    return Answer(text=f"answer to {seen.text}")


# What is sent and what comes back ----------------------------------------------------------------


def test_a_question_is_sent_as_a_chat_completion_and_its_reply_is_kept_whole(saved):
    conversation = (Message(role="system", content="Sé justo 🗝"), *question(1).conversation)
    with JudgeEndpoint(lambda seen: Answer(text=" fine\n", usage=(120, 30))) as server:
        limits = Limits(price_per_million_input_tokens=2.0, price_per_million_output_tokens=10.0)
        result = ask(server, [Question("k-1", conversation)], saved, limits, {"seed": 7})
    (seen,) = server.seen
    assert seen.body == {
        "model": "judge",
        "messages": [
            {"role": "system", "content": "Sé justo 🗝"},
            {"role": "user", "content": "case 1"},
        ],
        "max_tokens": 512,
        "temperature": 0.0,
        "seed": 7,
    }
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["idempotency-key"] == "k-1"
    (reply,) = saved.replies
    assert (reply.key, reply.text, reply.error, reply.model) == (
        "k-1",
        " fine\n",
        None,
        "judge-served",
    )
    assert (reply.input_tokens, reply.output_tokens, reply.attempts) == (120, 30, 1)
    assert reply.cost == pytest.approx((120 * 2.0 + 30 * 10.0) / 1e6)
    assert 0 < reply.latency_seconds < 5
    assert result.spent == reply.cost
    assert (result.asked, result.answered, result.failed) == (1, 1, {})
    assert (result.not_asked, result.why_not_asked) == (0, None)


@pytest.mark.parametrize("structured", [False, True])
def test_a_schema_is_sent_where_the_endpoint_takes_it(saved, structured):
    schema = {"type": "object", "properties": {"verdict": {"enum": ["good", "bad"]}}}
    with JudgeEndpoint() as server:
        asked = [question(1, schema), question(2)]
        ask(server, asked, saved, endpoint={"structured": structured}, api_key=None)
    formats = {seen.key: seen.body.get("response_format") for seen in server.seen}
    wrapped = {"name": "answer", "strict": True, "schema": schema}
    expected = {"type": "json_schema", "json_schema": wrapped} if structured else None
    assert formats == {"q1": expected, "q2": None}
    assert all("authorization" not in seen.headers for seen in server.seen)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://host:8000", "http://host:8000/v1/chat/completions"),
        ("http://host:8000/", "http://host:8000/v1/chat/completions"),
        ("https://host/v1", "https://host/v1/chat/completions"),
        ("https://host/api/v1/", "https://host/api/v1/chat/completions"),
        ("https://host/v1beta/openai/chat/completions",) * 2,
    ],
)
def test_an_address_may_be_given_with_its_version_or_without(url, address):
    assert Endpoint(url=url, model="m").address == address


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "localhost:8000"},
        {"url": "ftp://host"},
        {"url": "http://"},
        {"url": f"https://ada:{KEY}@host"},
        {"url": f"https://host/v1?key={KEY}"},
        {"url": "http://host:port"},
        {"api_key_variable": KEY},
        {"model": ""},
        {"max_tokens": 0},
        {"api_key": KEY},
    ],
)
def test_a_wrong_endpoint_is_refused_without_showing_a_key(wrong):
    with pytest.raises(ValidationError) as caught:
        Endpoint.model_validate({"url": "http://host", "model": "m"} | wrong)
    assert KEY not in str(caught.value)


def test_a_key_that_no_header_carries_is_sent_as_its_digest(saved):
    with JudgeEndpoint() as server:
        ask(server, [question("ü\n"), question("x" * 300)], saved)
    assert all(len(key) == 64 for key in server.hits)
    assert set(saved.texts) == {"qü\n", "q" + "x" * 300}


def test_a_reply_without_usage_or_model_is_kept_and_counts_at_its_worst(saved):
    raw = json.dumps({"choices": [{"message": {"content": None, "refusal": "No."}}]}).encode()
    limits = Limits(price_per_million_output_tokens=1e6)
    with JudgeEndpoint(lambda seen: Answer(raw=raw)) as server:
        result = ask(server, [question(1)], saved, limits, {"max_tokens": 9})
    (reply,) = saved.replies
    assert (reply.text, reply.model) == ("No.", "judge")
    assert (reply.input_tokens, reply.output_tokens) == (None, None)
    assert reply.cost == result.spent == 9.0


# Order, doubles, concurrency ----------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 30), max_size=40),
    concurrency=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_replies_depend_on_the_question_alone_and_doubles_are_asked_once(
    shared, numbers, concurrency, seed
):
    shared.reset()
    shared.behaviour = lambda seen: Answer(
        text=f"answer to {seen.text}", delay=hash((seen.text, seed)) % 5 / 1000
    )
    saved = Saved()
    asked = [question(number) for number in numbers]
    result = ask(shared, asked, saved, Limits(concurrency=concurrency))
    assert saved.texts == {f"q{n}": f"answer to case {n}" for n in numbers}
    assert shared.hits == Counter({f"q{n}": 1 for n in numbers})
    assert shared.most_in_flight <= concurrency
    assert result.answered == len(set(numbers))


def test_as_many_requests_as_allowed_are_in_flight_and_never_more(saved):
    with JudgeEndpoint(lambda seen: Answer(delay=0.05)) as server:
        result = ask(server, questions(70), saved, Limits(concurrency=7))
    assert server.most_in_flight == 7
    assert 70 / 7 * 0.05 <= result.seconds < 70 * 0.05
    assert len(saved.texts) == 70


def test_a_slow_save_makes_larger_groups_and_bounds_what_is_not_saved(saved):
    behind = []

    def slow(replies):
        time.sleep(0.05)
        saved(replies)
        behind.append(sum(server.hits.values()) - len(saved.replies))

    with JudgeEndpoint(lambda seen: Answer(delay=0.01)) as server:
        ask(server, questions(80), slow, Limits(concurrency=8))
    assert len(saved.texts) == 80
    assert max(saved.calls) > 1
    assert len(saved.calls) < 80 / 2
    assert max(behind) <= 8


def test_save_and_progress_see_the_callers_context_and_it_may_run_a_loop(saved):
    asker: ContextVar[str] = ContextVar("asker", default="nobody")
    seen = set()

    def note(_):
        seen.add((asker.get(), threading.get_ident()))

    async def inside() -> Asked:
        asker.set("a flow")
        return ask(server, questions(5), lambda r: (saved(r), note(r)), progress=note)

    with JudgeEndpoint() as server:
        assert asyncio.run(inside()).answered == 5
    ((name, _),) = seen
    assert name == "a flow"


# Failures -----------------------------------------------------------------------------------------


def test_a_429_waits_as_long_as_the_server_asks_and_everybody_waits(saved):
    def behaviour(seen):
        limited = seen.key == "q0" and seen.hit == 1
        return Answer(429, headers={"Retry-After": "1"}) if limited else Answer(delay=0.02)

    with JudgeEndpoint(behaviour) as server:
        ask(server, questions(40), saved, Limits(concurrency=2, backoff_seconds=0.01))
    assert len(saved.texts) == 40
    assert server.hits == Counter({f"q{n}": 1 for n in range(40)} | {"q0": 2})
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert max(gaps) > 0.9
    assert next(reply.attempts for reply in saved.replies if reply.key == "q0") == 2


def test_a_wait_of_hours_ends_the_run_instead(saved):
    def behaviour(seen):
        return Answer(429, headers={"Retry-After": "7200"}) if seen.key == "q3" else Answer()

    with JudgeEndpoint(behaviour) as server:
        result = ask(server, questions(50), saved, Limits(concurrency=1))
    assert set(saved.texts) == {"q0", "q1", "q2"}
    assert result.failed == {"HTTP 429": 1}
    assert (result.not_asked, result.why_not_asked) == (46, "the endpoint asks to wait 7200 s")


@settings(max_examples=15, deadline=None)
@given(
    scripts=st.lists(
        st.lists(st.sampled_from(["429", "500", "503", "drop", "400", "garbage"]), max_size=5),
        min_size=1,
        max_size=18,
    ),
    concurrency=st.integers(1, 6),
)
def test_passing_failures_are_tried_again_and_others_fail_the_one_question(
    shared, scripts, concurrency
):
    def behaviour(seen):
        script = scripts[int(seen.key[1:])]
        step = script[seen.hit - 1] if seen.hit <= len(script) else "fine"
        if step in ("fine", "garbage"):
            return Answer(raw=b"<html>" if step == "garbage" else None)
        return Answer(drop=True) if step == "drop" else Answer(int(step))

    shared.reset()
    shared.behaviour = behaviour
    saved = Saved()
    limits = Limits(concurrency=concurrency, attempts=4, backoff_seconds=0.001)
    result = ask(shared, questions(len(scripts)), saved, limits)
    reasons = {"drop": "connection lost", "garbage": "not a chat completion: no JSON"}
    expected_failures, expected_hits = Counter(), {}
    for number, script in enumerate(scripts):
        tried = [*script, "fine"][:4]
        ends = next((i for i, s in enumerate(tried) if s in ("400", "garbage", "fine")), 3)
        expected_hits[f"q{number}"] = ends + 1
        if tried[ends] != "fine":
            expected_failures[reasons.get(tried[ends], f"HTTP {tried[ends]}")] += 1
    assert shared.hits == expected_hits
    assert result.failed == expected_failures
    assert result.answered == len(saved.texts) == len(scripts) - expected_failures.total()
    assert all(reply.attempts == expected_hits[reply.key] for reply in saved.replies)


def test_a_timeout_is_tried_again_and_leaves_no_connection_behind(saved):
    def behaviour(seen):
        return Answer(delay=2.0 if seen.hit == 1 else 0.0)

    with JudgeEndpoint(behaviour) as server:
        limits = Limits(concurrency=4, timeout_seconds=0.3, backoff_seconds=0.01)
        result = ask(server, questions(12), saved, limits)
    assert len(saved.texts) == 12
    assert {reply.attempts for reply in saved.replies} == {2}
    assert result.seconds < 12 * 2.0 / 4  # what it takes without the timeout


def test_an_endpoint_that_never_answers_in_time_fails_each_question(saved):
    with JudgeEndpoint(lambda seen: Answer(delay=2.0)) as server:
        limits = Limits(concurrency=4, timeout_seconds=0.1, attempts=2, backoff_seconds=0.01)
        result = ask(server, questions(4), saved, limits)
    assert result.failed == {"timed out": 4}
    assert server.hits == Counter({f"q{n}": 2 for n in range(4)})
    assert saved.replies == []


def test_an_endpoint_that_is_not_there_is_given_up_after_questions_in_a_row(saved):
    limits = Limits(concurrency=4, attempts=2, backoff_seconds=0.001)
    endpoint = Endpoint(url="http://127.0.0.1:9", model="judge")
    result = ask_endpoint(questions(500), endpoint, limits, api_key=None, save=saved)
    assert result.failed == {"no connection": result.asked}
    assert 20 <= result.asked < 30
    assert result.asked + result.not_asked == 500
    assert "questions in a row, the last with: no connection" in result.why_not_asked


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[1]", "no JSON object"),
        (b'{"error": {"message": "overloaded"}}', "no choices"),
        (b'{"choices": []}', "no choices"),
        (b'{"choices": [null]}', "no choices"),
        (b'{"choices": [{"text": "good"}]}', "no message"),
        (b'{"choices": [{"message": {"content": 1}}]}', "content is no text"),
        (b'{"choices": [{"message": {"content": ["a"]}}]}', "content is no text"),
    ],
)
def test_a_reply_that_is_no_chat_completion_is_a_failed_question(saved, raw, reason):
    with JudgeEndpoint(lambda seen: Answer(raw=raw)) as server:
        result = ask(server, [question(1)], saved)
    assert result.failed == {f"not a chat completion: {reason}": 1}
    assert (result.asked, result.answered, saved.replies) == (1, 0, [])
    assert server.hits == {"q1": 1}


@settings(max_examples=25, deadline=None)
@given(
    usage=st.one_of(
        st.none(),
        st.lists(st.integers()),
        st.dictionaries(
            st.sampled_from(["prompt_tokens", "completion_tokens"]),
            st.one_of(
                st.none(),
                st.booleans(),
                st.text(),
                st.integers(-5, 50),
                st.just(10**300),
                st.floats(),
            ),
        ),
    ),
    model=st.one_of(st.none(), st.text(max_size=5), st.integers(), st.just("m" * 201)),
)
def test_no_usage_and_no_name_breaks_a_run(shared, usage, model):
    reply = {"choices": [{"message": {"content": "x"}}], "usage": usage, "model": model}
    shared.reset()
    shared.behaviour = lambda seen: Answer(raw=json.dumps(reply).encode())
    saved = Saved()
    ask(shared, [question(1)], saved)
    (kept,) = saved.replies
    assert kept.text == "x"
    named = isinstance(model, str) and 0 < len(model) <= 200 and model.isprintable()
    assert kept.model == (model if named else "judge")
    for name, value in (
        ("prompt_tokens", kept.input_tokens),
        ("completion_tokens", kept.output_tokens),
    ):
        sent = usage.get(name) if isinstance(usage, dict) else None
        assert value == (sent if type(sent) is int and 0 <= sent <= 50 else None)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "must accept the API key, got HTTP 401"),
        (403, "must accept the API key, got HTTP 403"),
        (402, "add credit"),
        (404, "know the model 'judge', got HTTP 404"),
        (301, "check url and model"),
    ],
)
def test_a_refusal_ends_everything_at_once_and_shows_no_key(saved, caplog, status, says):
    caplog.set_level(logging.DEBUG)
    raw = json.dumps({"error": f"wrong key {KEY} given"}).encode()
    with (
        JudgeEndpoint(lambda seen: Answer(status, raw=raw)) as server,
        pytest.raises(ModelError, match=says) as caught,
    ):
        ask(server, questions(200), saved, endpoint={"api_key_variable": "JUDGE_KEY"})
    assert sum(server.hits.values()) <= FAST.concurrency
    assert "wrong key *** given" in str(caught.value)
    if status in (401, 403):
        assert "JUDGE_KEY" in str(caught.value)
    text = str(caught.value) + repr(caught.value.__context__) + caplog.text
    assert KEY not in text


def test_a_refusal_without_a_key_says_where_to_put_one(saved):
    with (
        JudgeEndpoint(lambda seen: Answer(401)) as server,
        pytest.raises(ModelError, match="name it in api_key_variable"),
    ):
        ask(server, [question(1)], saved, api_key=None)


def test_a_refusal_half_way_keeps_what_came_before_it(saved):
    def behaviour(seen):
        return Answer(401 if seen.key == "q20" else 200, delay=0.005)

    with JudgeEndpoint(behaviour) as server, pytest.raises(ModelError):
        ask(server, questions(100), saved)
    assert {f"q{n}" for n in range(20)} <= set(saved.texts)
    assert len(saved.texts) + 1 == len(server.hits)


@pytest.mark.parametrize("key", [f"{KEY}\nx", f"{KEY} ü"])
def test_a_key_that_no_header_carries_is_one_error_that_does_not_show_it(saved, key):
    with JudgeEndpoint() as server, pytest.raises(ModelError, match="printable ASCII") as caught:
        ask(server, [question(1)], saved, api_key=key)
    assert KEY not in str(caught.value)


def test_the_end_of_line_of_a_key_file_is_no_part_of_the_key(saved):
    with JudgeEndpoint() as server:
        ask(server, [question(1)], saved, api_key=f"{KEY}\n")
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"


# Spend ceiling ------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    ceiling=st.integers(0, 6_000),
    input_price=st.integers(0, 3),
    output_price=st.integers(1, 3),
    concurrency=st.integers(1, 8),
    outputs=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    failing=st.sets(st.integers(0, 39), max_size=5),
)
def test_the_bill_never_exceeds_the_ceiling(
    shared, ceiling, input_price, output_price, concurrency, outputs, failing
):
    """The server's own count is held against the ceiling; it counts a token for four characters."""

    def behaviour(seen):
        number = int(seen.key[1:])
        if number in failing and seen.hit == 1:
            return Answer(503)
        return Answer(usage=(len(seen.text) // 4, outputs[number]), delay=number % 3 / 1000)

    shared.reset()
    shared.behaviour = behaviour
    saved = Saved()
    limits = Limits(
        concurrency=concurrency,
        backoff_seconds=0.001,
        spend_ceiling=ceiling,
        price_per_million_input_tokens=input_price * 1e6,
        price_per_million_output_tokens=output_price * 1e6,
    )
    result = ask(shared, questions(len(outputs)), saved, limits, {"max_tokens": 50})
    billed = shared.billed_tokens[0] * input_price + shared.billed_tokens[1] * output_price
    assert billed <= ceiling + 1e-6
    assert result.spent == pytest.approx(billed)
    assert result.asked + result.not_asked == len(outputs)
    assert result.answered == len(saved.texts)
    if result.not_asked:
        assert result.why_not_asked == "the spend ceiling would be exceeded"
        # The rest of the ceiling is less than the worst case of one more question.
        assert ceiling - billed < 50 * output_price + (3 + 8) * input_price
    else:
        assert result.why_not_asked is None


def test_a_server_that_counts_more_input_than_estimated_makes_later_estimates_larger():
    limits = Limits(spend_ceiling=100.0, price_per_million_input_tokens=1e6)
    ledger = Ledger(limits)
    assert ledger.fits(Tokens(30, 5))
    ledger.reserve(Tokens(10, 5))
    ledger.settle(Tokens(10, 5), cost=20.0, counted_input=20)
    assert ledger.fits(Tokens(40, 5))  # 20 + 2 x 40
    assert not ledger.fits(Tokens(41, 5))


def test_a_lost_reply_counts_as_paid(saved):
    limits = Limits(
        attempts=3, backoff_seconds=0.001, price_per_million_output_tokens=1e6, spend_ceiling=25.0
    )
    with JudgeEndpoint(lambda seen: Answer(drop=True)) as server:
        result = ask(server, questions(4), saved, limits, {"max_tokens": 10})
    assert sum(server.hits.values()) == 2
    assert result.spent == 20.0
    assert result.why_not_asked == "the spend ceiling would be exceeded"


def test_a_ceiling_without_prices_is_refused():
    with pytest.raises(ValidationError, match="a spend ceiling needs prices"):
        Limits(spend_ceiling=1.0)


@given(st.text(max_size=60))
def test_more_tokens_are_estimated_than_a_byte_level_tokenizer_of_three_bytes_has(text):
    assert estimate_input_tokens(text) >= 8 + len(text.encode()) / 3


# Pace ---------------------------------------------------------------------------------------------


def test_requests_keep_the_pace(saved):
    limits = Limits(concurrency=8, requests_per_minute=1200.0)
    with JudgeEndpoint() as server:
        result = ask(server, questions(21), saved, limits)
    assert result.seconds >= 20 * 0.05
    assert result.seconds < 10.0
    for start in server.times:  # no burst: 5 in a quarter second, twice that on a busy machine
        assert sum(start <= moment < start + 0.25 for moment in server.times) <= 10


def test_tokens_keep_the_pace_by_what_the_server_counted(saved):
    limits = Limits(concurrency=1, tokens_per_minute=6000.0)  # 100 a second
    with JudgeEndpoint(lambda seen: Answer(usage=(5, 5))) as server:
        result = ask(server, questions(11), saved, limits, {"max_tokens": 200})
    assert 10 * 0.1 <= result.seconds < 10.0


@given(
    per_minute=st.floats(1.0, 1e5),
    amounts=st.lists(st.floats(0.1, 100.0), min_size=1, max_size=30),
    gaps=st.lists(st.floats(0.0, 10.0), min_size=30, max_size=30),
)
def test_no_span_of_time_takes_more_than_its_share_and_one_request(per_minute, amounts, gaps):
    pace, now, taken = Pace(per_minute), 0.0, []
    for amount, gap in zip(amounts, gaps, strict=False):
        now += gap
        wait = pace.take(amount, now)
        assert wait >= 0.0
        taken.append((now + wait, amount))
    for i, (first, _) in enumerate(taken):
        for j in range(i, len(taken)):
            used = sum(amount for _, amount in taken[i:j])
            assert used <= (taken[j][0] - first) * per_minute / 60.0 * (1 + 1e-9) + 1e-6


def test_without_a_pace_nobody_waits():
    pace = Pace(None)
    assert [pace.take(1e9, now) for now in (0.0, 0.0, 1.0)] == [0.0, 0.0, 0.0]


@given(key=st.text(max_size=10), attempt=st.integers(1, 2000), first=st.floats(0.001, 60.0))
def test_backoff_doubles_up_to_a_bound_with_jitter_that_repeats(key, attempt, first):
    wait = backoff_seconds(key, attempt, first)
    longest = min(first * 2.0 ** min(attempt - 1, 50), max(30.0, first))
    assert longest / 2 <= wait <= longest
    assert wait == backoff_seconds(key, attempt, first)


def test_jitter_keeps_questions_from_marching_in_step():
    assert len({round(backoff_seconds(f"q{n}", 1, 1.0), 3) for n in range(100)}) > 80


@given(st.integers(-100_000, 100_000))
def test_retry_after_is_read_as_seconds_and_as_a_date(seconds):
    later = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_seconds(later, NOW) == max(0, seconds)
    assert retry_after_seconds(f" {abs(seconds)} ", NOW) == abs(seconds)


@given(st.one_of(st.none(), st.text(max_size=40)))
def test_any_other_retry_after_is_harmless(text):
    found = retry_after_seconds(text, NOW)
    assert found is None or found >= 0.0


# Stopping -----------------------------------------------------------------------------------------


def test_stop_finishes_what_is_in_flight_and_a_second_run_asks_the_rest(saved):
    stop = threading.Event()

    def save(replies):
        saved(replies)
        if len(saved.replies) >= 30:
            stop.set()

    with JudgeEndpoint(lambda seen: Answer(delay=0.02)) as server:
        first = ask(server, questions(100), save, stop=stop)
        assert len(saved.replies) == len(server.hits) == first.answered
        assert 30 <= first.asked <= 30 + 2 * FAST.concurrency
        assert (first.not_asked, first.why_not_asked) == (100 - first.asked, "it was told to stop")
        known = saved.texts
        second = ask(server, [q for q in questions(100) if q.key not in known], saved)
    assert first.answered + second.answered == 100
    assert server.hits == Counter({f"q{n}": 1 for n in range(100)})


def test_stop_does_not_wait_for_a_pause_or_a_backoff(saved):
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with JudgeEndpoint(lambda seen: Answer(429, headers={"Retry-After": "60"})) as server:
        result = ask(server, questions(10), saved, stop=stop)
    assert result.seconds < 10.0
    assert result.failed == {"HTTP 429": 8}
    assert result.not_asked == 2


def test_a_run_that_is_stopped_before_it_begins_asks_nothing(saved):
    stop = threading.Event()
    stop.set()
    with JudgeEndpoint() as server:
        result = ask(server, questions(10), saved, stop=stop)
    assert (result.asked, result.not_asked, server.hits) == (0, 10, {})


@pytest.fixture(autouse=True)
def _heeds_ctrl_c():
    """A shell's background job ignores Ctrl-C, and so would all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(after: float = 0.0) -> None:
    """Press Ctrl-C, from a thread that saves: the asking one waits by then."""
    threading.Timer(after, os.kill, [os.getpid(), signal.SIGINT]).start()


@pytest.mark.parametrize("count", [1, 50, 120])
def test_an_interrupt_loses_nothing_and_is_raised_at_the_end(saved, count):
    pressed = []

    def slow(replies):
        if len(saved.replies) + len(replies) >= count and not pressed:
            pressed.append(True)
            interrupt()
        time.sleep(0.02)
        saved(replies)

    with JudgeEndpoint(lambda seen: Answer(delay=0.01)) as server:
        with pytest.raises(KeyboardInterrupt):
            ask(server, questions(2000), slow)
        assert server.hits == Counter(dict.fromkeys(saved.texts, 1))
    assert count <= len(saved.texts) < 2000


def test_a_second_interrupt_does_not_wait_but_still_saves_what_came(saved):
    def behaviour(seen):
        return Answer(delay=0.0 if seen.key == "q0" else 30.0)

    def save(replies):
        saved(replies)
        interrupt()
        interrupt(after=2.0)  # two at once would count as one

    began = time.monotonic()
    with JudgeEndpoint(behaviour) as server, pytest.raises(KeyboardInterrupt):
        ask(server, questions(5), save)
    assert 2.0 <= time.monotonic() - began < 20.0
    assert set(saved.texts) == {"q0"}


@pytest.mark.slow
def test_a_third_interrupt_does_not_wait_for_a_save_that_hangs():
    free = threading.Event()

    def hang(_):
        for after in (0.0, 3.0, 6.0):  # two at once would count as one
            interrupt(after)
        free.wait(60)

    began = time.monotonic()
    with JudgeEndpoint() as server, pytest.raises(KeyboardInterrupt):
        ask(server, [question(1)], hang)
    assert time.monotonic() - began < 45.0
    free.set()


@pytest.mark.parametrize("error", [OSError("the disk is full"), SystemExit("the disk is full")])
@pytest.mark.parametrize("place", ["save", "progress"])
def test_an_error_of_save_or_progress_stops_everything_and_is_raised(place, error):
    def fail(_):
        raise error

    options = {"save": fail} if place == "save" else {"save": Saved(), "progress": fail}
    with JudgeEndpoint(lambda seen: Answer(delay=0.01)) as server:
        with pytest.raises(type(error), match="the disk is full"):
            ask(server, questions(200), **options)
        count = sum(server.hits.values())
        time.sleep(0.1)
        assert sum(server.hits.values()) == count <= 2 * FAST.concurrency
    assert "ratchet-asking" not in {thread.name for thread in threading.enumerate()}


# Progress -----------------------------------------------------------------------------------------


def test_progress_adds_up_and_ends_complete(saved):
    told: list[Progress] = []
    with JudgeEndpoint(lambda seen: Answer(400 if seen.key == "q7" else 200, delay=0.02)) as server:
        limits = Limits(concurrency=4, price_per_million_input_tokens=1e5)
        ask(server, questions(60), saved, limits, progress=told.append)
    last = told[-1]
    assert (last.done, last.total, last.failed, last.seconds_left) == (60, 60, 1, 0.0)
    assert last.spent == pytest.approx(59 * 10 * 0.1)
    assert [step.done for step in told] == sorted(step.done for step in told)
    assert all(step.seconds_left is None for step in told if not step.done)


def test_the_log_of_progress_speaks_every_few_seconds(caplog):
    caplog.set_level(logging.INFO)
    log = ProgressLog(every_seconds=0.05)
    for done in range(12):
        log(Progress(done, 12, 1, 0.5, 4.0, None if not done else (12 - done) / 4))
        time.sleep(0.01)
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len(lines) <= 3
    assert "of 12 questions, 1 failed, 0.50 spent, 4.0 a second" in lines[0]


def test_no_questions_are_no_run(saved):
    endpoint = Endpoint(url="http://127.0.0.1:9", model="judge")
    result = ask_endpoint([], endpoint, FAST, api_key=None, save=saved)
    assert (result.asked, result.failed, result.not_asked, saved.calls) == (0, {}, 0, [])


# Models in this process ---------------------------------------------------------------------------


def test_a_local_model_is_asked_in_batches_and_each_is_saved(saved):
    told: list[Progress] = []
    model = ScriptedModel(lambda turn: f"answer to {turn[-1].content}")
    asked = [*questions(10), question(3)]
    result = ask_model(
        asked, model, max_new_tokens=50, save=saved, progress=told.append, batch_size=4
    )
    assert saved.texts == {f"q{n}": f"answer to case {n}" for n in range(10)}
    assert saved.calls == [4, 4, 2]
    assert [step.done for step in told] == [4, 8, 10]
    assert {reply.model for reply in saved.replies} == {f"local:{model.digest[:12]}"}
    assert (result.asked, result.answered, result.spent) == (10, 10, 0.0)


def test_a_local_failure_is_counted_and_a_stop_leaves_the_rest(saved):
    class Failing:
        digest = "0" * 64

        def generate(self, conversations, *, max_new_tokens):
            return [
                Completion("", 0.0, "no memory")
                if turn[-1].content == "case 1"
                else Completion("x", 0.5)
                for turn in conversations
            ]

    stop = threading.Event()

    def save(replies):
        saved(replies)
        stop.set()

    result = ask_model(
        questions(10), Failing(), max_new_tokens=5, save=save, batch_size=3, stop=stop
    )
    assert set(saved.texts) == {"q0", "q2"}
    assert (result.asked, result.failed, result.not_asked) == (3, {"no memory": 1}, 7)
    assert result.why_not_asked == "it was told to stop"


# Killed -------------------------------------------------------------------------------------------

COLLECT = """
import signal, sys, threading
from datetime import UTC, datetime
from ratchet.models.asking import ask_endpoint
from ratchet.models.endpoint import Endpoint, Question
from ratchet.models.limits import Limits
from ratchet.records import JudgeVerdict, Message
from ratchet.store import EventStore

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
store = EventStore.open(sys.argv[2])
asked = {f"q{n}": Question(f"q{n}", (Message(role="user", content=str(n)),)) for n in range(400)}
known = store.verdicts(list(asked))

def save(replies):
    store.add_verdicts([
        JudgeVerdict(
            id=reply.key, created_at=datetime.now(UTC), judge="j", judge_version="v",
            dimension="d", mode="pointwise", model=reply.model,
            prompt=asked[reply.key].conversation, reply=reply.text, outcome=reply.text, score=1.0,
        )
        for reply in replies
    ])

ask_endpoint(
    [question for key, question in asked.items() if key not in known],
    Endpoint(url=sys.argv[1], model="judge"),
    Limits(concurrency=16),
    api_key=None, save=save, stop=stop,
)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_ended_half_way_goes_on_and_pays_at_most_for_what_was_in_flight(
    tmp_path: Path, sent: signal.Signals
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with endpoint_process(0.03) as server:
        command = [sys.executable, "-c", COLLECT, server.url, url]
        process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.DEVNULL)
        while len(server.stats()["hits"]) < 150:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(sent)
        process.wait(timeout=20)
        store = EventStore.open(url)
        kept = len(store.verdicts_of("v"))
        before = server.stats()["hits"]
        assert 150 <= len(before) < 400
        assert subprocess.run(command, timeout=30, env=dict(os.environ)).returncode == 0
        stats = server.stats()
        assert len(store.verdicts_of("v")) == 400 == len(stats["hits"])
        store.close()
    twice = sum(hits - 1 for hits in stats["hits"].values())
    assert twice == len(before) - kept
    assert twice <= (16 if sent == signal.SIGKILL else 0)
    assert set(stats["billed"].values()) == {1}  # where Idempotency-Key is honoured
    assert stats["most_in_flight"] <= 16
