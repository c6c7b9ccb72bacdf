"""Questions in shards: each is asked once, paces are shared, an endpoint that fails ends it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ratchet.errors import ModelError
from ratchet.executors import INLINE, Inline, Processes
from ratchet.judges import spread
from ratchet.judges.judge import asker
from ratchet.judges.rubrics import JudgeSpec
from ratchet.judges.spread import ask_spread
from ratchet.models.asking import Asked
from ratchet.models.endpoint import Endpoint, Question, Reply
from ratchet.models.limits import Limits
from ratchet.records import Message
from tests.servers.judge_endpoint import Answer, JudgeEndpoint, Seen

LIMITS = Limits(concurrency=8, backoff_seconds=0.01, attempts=2)


class FourAtATime(Inline):
    """Says that it works on four shards at a time, as limits are shared out by that."""

    workers = 4


def ask(
    server: JudgeEndpoint, count: int, limits: Limits = LIMITS
) -> tuple[Asked, list[Sequence[Reply]]]:
    questions = [
        Question(f"q{n}", (Message(role="user", content=f"case {n}"),)) for n in range(count)
    ]
    saved: list[Sequence[Reply]] = []
    endpoint = Endpoint(url=server.url, model="judge")
    asked = ask_spread(
        questions, saved.append, endpoint=endpoint, limits=limits, executor=FourAtATime()
    )
    return asked, saved


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "SHARD", 10)


def test_each_question_is_asked_once_and_saved_shard_by_shard() -> None:
    with JudgeEndpoint(lambda seen: Answer(text=f"re {seen.text}")) as server:
        asked, saved = ask(server, 25)
    assert [len(replies) for replies in saved] == [10, 10, 5]
    assert {one.key: one.text for part in saved for one in part} == {
        f"q{n}": f"re case {n}" for n in range(25)
    }
    assert (asked.asked, asked.answered, asked.not_asked, asked.why_not_asked) == (25, 25, 0, None)
    assert set(server.hits.values()) == {1}


def test_what_fails_is_counted_over_all_shards() -> None:
    def behaviour(seen: Seen) -> Answer:
        return Answer(status=400) if seen.text.endswith("3") else Answer()

    with JudgeEndpoint(behaviour) as server:
        asked, saved = ask(server, 25)
    assert (asked.failed, asked.answered) == ({"HTTP 400": 3}, 22)
    assert sum(map(len, saved)) == 22


def test_an_endpoint_that_fails_ends_it_and_what_came_is_saved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spread, "SHARD", 30)

    def behaviour(seen: Seen) -> Answer:
        return Answer() if int(seen.text.split()[1]) < 30 else Answer(status=503)

    with JudgeEndpoint(behaviour) as server:
        asked, saved = ask(server, 120)
        numbers = {int(seen.text.split()[1]) for seen in server.seen}
    assert [len(replies) for replies in saved] == [30]
    assert asked.why_not_asked is not None
    assert "failed" in asked.why_not_asked
    assert asked.asked + asked.not_asked == 120
    assert max(numbers) < 60  # the third shard was never begun


def test_a_refused_key_is_said() -> None:
    with JudgeEndpoint(lambda _: Answer(status=401)) as server, pytest.raises(ModelError):
        ask(server, 25)


def test_the_pace_is_shared_and_nothing_is_asked_of_nobody() -> None:
    limits = Limits(concurrency=8, requests_per_minute=600.0, tokens_per_minute=9_000.0)
    part = spread._share(limits, 4)
    assert (part.concurrency, part.requests_per_minute, part.tokens_per_minute) == (2, 150, 2_250)
    assert spread._share(LIMITS, 100).concurrency == 1
    with JudgeEndpoint() as server:
        assert ask(server, 0)[0].asked == 0


def test_a_judge_with_a_spend_ceiling_is_asked_from_here() -> None:
    def how(**limits: float) -> str:
        spec = JudgeSpec.model_validate(
            {"name": "j", "endpoint": {"url": "http://127.0.0.1:1", "model": "m"}, "limits": limits}
        )
        asked_here = asker(spec, None, environ={}, executor=INLINE)
        assert asked_here.func.__name__ == "_ask_endpoint"
        return asker(spec, None, environ={}, executor=Processes(2)).func.__name__

    ceiling = {"spend_ceiling": 1.0, "price_per_million_input_tokens": 1.0}
    assert (how(), how(**ceiling)) == ("ask_spread", "_ask_endpoint")
