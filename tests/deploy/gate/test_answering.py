"""The gate asks the server that answers users: two replicas that behave as vLLM does."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ratchet.deploy.gate.answering import (
    AnswerOptions,
    by_backend,
    by_endpoint,
    by_process,
    way_of,
)
from ratchet.deploy.gate.head_to_head import answer_recorded
from ratchet.errors import ModelError
from ratchet.models import Completion, Sampling
from ratchet.records import Example, Message
from ratchet.store import EventStore
from tests.servers.vllm_server import VllmServer

NOTHING = Sampling()
EXAMPLES = tuple(
    Example(id=f"e{n}", messages=(Message(role="user", content=f"question {n}"),), target="")
    for n in range(5)
)


@pytest.fixture
def replicas():
    with VllmServer("org/base") as one, VllmServer("org/base") as other:
        yield one, other


@pytest.fixture
def store():
    opened = EventStore.open("sqlite://")
    yield opened
    opened.close()


@pytest.fixture
def adapter(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    return str(tmp_path)


def asked(replicas, store, version, *, name=None, place=lambda: None, sampling=NOTHING):
    with by_backend(
        [replica.url for replica in replicas], version, name=name or version, place=place,
        sampling=sampling,
    ) as load:  # fmt: skip
        return answer_recorded(
            EXAMPLES, lambda: load(False), store, name=version, model_digest=version,
            decoding="backend-64", max_new_tokens=64,
        )  # fmt: skip


def test_a_challenger_is_loaded_for_the_evaluation_alone(replicas, store, adapter):
    made = asked(replicas, store, "m/2", place=lambda: adapter)
    assert sorted(made.texts.values()) == [f"gate-m/2: question {n}" for n in range(5)]
    one, other = replicas
    assert one.calls == [("load", "gate-m/2"), ("unload", "gate-m/2")]
    assert (one.adapters, other.calls, other.answers) == ({}, [], [])


def test_what_users_are_answered_by_is_asked_by_its_name_and_stays(replicas, store, adapter):
    one, _ = replicas
    asked(replicas, store, "the champion", name="org/base")
    one.adapters["m/2"] = adapter
    asked(replicas, store, "m/2", place=lambda: pytest.fail("it is served"))
    assert {name for _, name in one.answers} == {"org/base", "m/2"}
    assert (one.calls, set(one.adapters)) == ([], {"m/2"})


def test_answers_that_are_recorded_need_no_server(replicas, store, adapter):
    first = asked(replicas, store, "m/2", place=lambda: adapter)
    for replica in replicas:
        replica.stop()
    again = asked(replicas, store, "m/2", place=lambda: pytest.fail("nothing is missing"))
    assert again.texts == first.texts
    for replica in replicas:
        replica.start()


def test_the_next_replica_is_asked_where_one_is_down_and_all_reasons_are_told(
    replicas, store, adapter
):
    one, other = replicas
    one.stop()
    assert len(asked(replicas, store, "m/2", place=lambda: adapter).texts) == 5
    assert other.calls == [("load", "gate-m/2"), ("unload", "gate-m/2")]
    other.stop()
    with pytest.raises(ModelError, match=f"got no answer: {one.url} .*{other.url}"):
        asked(replicas, store, "m/3", place=lambda: adapter)
    one.start()
    other.start()


@pytest.mark.parametrize(
    ("version", "spoil", "said"),
    [
        (
            "base/1",
            lambda one: None,
            "has no adapter to load, so the backend must list it; .* it has: org/base",
        ),
        ("m/2", lambda one: setattr(one, "lost_loads", 1), "got: .*the engine died"),
        (
            "m/2",
            lambda one: setattr(one, "max_rank", 0),
            "got: .*rank 1 is greater .*BACKEND_ADAPTER",
        ),
    ],
)
def test_a_version_that_the_server_cannot_answer_as_is_an_error_before_anything_is_asked(
    replicas, store, adapter, version, spoil, said
):
    one, _ = replicas
    spoil(one)
    place = (lambda: None) if version == "base/1" else lambda: adapter
    with pytest.raises(ModelError, match=said):
        asked(replicas, store, version, place=place)
    assert one.bodies == []


def test_what_an_evaluation_that_was_killed_left_loaded_is_used_and_unloaded(
    replicas, store, adapter
):
    one, _ = replicas
    one.adapters["gate-m/2"] = adapter
    assert len(asked(replicas, store, "m/2", place=lambda: adapter).texts) == 5
    assert one.calls == [("unload", "gate-m/2")]


def test_a_name_that_is_taken_with_nothing_behind_it_is_loaded_anew(replicas, store, adapter):
    one, _ = replicas
    one._taken.add("gate-m/2")
    assert len(asked(replicas, store, "m/2", place=lambda: adapter).texts) == 5
    assert one.calls == [(step, "gate-m/2") for step in ("load", "unload", "load", "unload")]


@pytest.mark.parametrize(
    ("sampling", "sent"),
    [
        (Sampling(), {}),
        (Sampling(0.7, 0.9), {"temperature": 0.7, "top_p": 0.9}),
        (Sampling(0.0, None), {"temperature": 0.0}),
    ],
)
def test_requests_name_what_users_name_and_nothing_else(replicas, store, sampling, sent):
    asked(replicas, store, "org/base", sampling=sampling)
    for body in replicas[0].bodies[1:]:  # after the probe
        named = {key: value for key, value in body.items() if key not in ("model", "messages")}
        assert named == sent | {"max_tokens": 64}


def test_another_endpoint_is_probed_before_it_is_asked(replicas):
    one, _ = replicas
    words = {"sampling": Sampling(), "key": None, "variable": None, "at_once": 2}
    model = by_endpoint(one.url, "org/base", **words)(False)
    (answer,) = model.generate([EXAMPLES[0].messages], max_new_tokens=8)
    assert answer.text == "org/base: question 0"
    with pytest.raises(ModelError, match="`org/other` does not exist"):
        by_endpoint(one.url, "org/other", **words)(False)


class Asked:
    """Remembers how it was asked."""

    digest = "d"

    def __init__(self):
        self.calls = []

    def generate(self, conversations, *, max_new_tokens, temperature=0.0, seed=None):
        self.calls.append((temperature, seed))
        return [Completion("", 0.0) for _ in conversations]


def test_a_model_of_this_process_samples_as_users_are_answered_and_the_same_again():
    model = Asked()
    assert by_process(lambda _: model, Sampling(None, 0.9))(True) is model
    assert by_process(lambda _: model, Sampling(0.0, None))(True) is model
    sampled = by_process(lambda _: model, Sampling(0.8, None))(True)
    for _ in range(2):
        sampled.generate([EXAMPLES[0].messages], max_new_tokens=8)
    sampled.generate([EXAMPLES[1].messages], max_new_tokens=8)
    sampled.generate([EXAMPLES[0].messages], max_new_tokens=8, temperature=1.0, seed=3)
    first, again, other, drawn = model.calls
    assert first == again
    assert (first[0], drawn) == (0.8, (1.0, 3))
    assert other[1] != first[1]


def test_who_answers_and_how_is_part_of_the_record():
    ways = [
        way_of(by, sampling, url)
        for by, url in [
            ("process", ""), ("backend", ""), ("endpoint", "http://a:1"), ("endpoint", "http://b:1"),
        ]
        for sampling in (Sampling(0.7, None), Sampling(0.7, 0.9), Sampling(None, 0.9))
    ]  # fmt: skip
    assert len(set(ways)) == 12
    assert ways[2] == way_of("process", Sampling()) == "greedy"
    assert not any("-" in way for way in ways)


def test_an_address_and_the_endpoint_belong_together():
    assert AnswerOptions(by="endpoint", url="http://a:1").url == "http://a:1"
    for wrong in ({"by": "endpoint"}, {"url": "http://a:1"}, {"by": "endpoint", "url": "a"}):
        with pytest.raises(ValidationError):
            AnswerOptions(**wrong)
    stated = AnswerOptions(temperature=0.0)
    assert stated.sampling(Sampling(0.7, 0.9)) == Sampling(0.0, 0.9)
