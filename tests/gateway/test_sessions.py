"""Turns of one conversation stay with one user, session and version, also where nobody is named."""

from __future__ import annotations

import pytest

from ratchet.gateway.sessions import Conversations
from tests.gateway.conftest import routing


@pytest.fixture
def halves(gateway):
    gateway.store.append(routing(("m/2", 0.5), ("m/1", 0.5)))
    gateway.app.state.gateway.router.refresh()
    return gateway


def say(gateway, turns, **fields):
    body = {"model": "any", "messages": turns} | fields
    reply = gateway.post("/v1/chat/completions", body)
    assert reply.status_code == 200
    return reply


def user(text):
    return {"role": "user", "content": text}


def answer(text):
    return {"role": "assistant", "content": text}


def kept_of(gateway):
    return [(i.model_version, i.user_id, i.session_id) for i in gateway.interactions()]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("number", range(4))
def test_a_conversation_keeps_its_version_user_and_session(halves, stream, number):
    turns = []
    for place in range(6):
        turns.append(user(f"question {place} of {number}"))
        say(halves, turns, stream=stream)
        turns.append(answer(f"question {place} of {number}"))  # the mock echoes
    assert len(set(kept_of(halves))) == 1


def test_system_prompts_parts_and_white_space_do_not_break_a_conversation(halves):
    say(halves, [{"role": "system", "content": "it is nine"}, user("where is my parcel ")])
    parts = [{"type": "text", "text": "where is my parcel"}]
    say(
        halves,
        [
            {"role": "system", "content": "it is ten"},
            {"role": "user", "content": parts},
            answer("where is my parcel\n"),
            user("and now?"),
        ],
    )
    assert len(set(kept_of(halves))) == 1


def test_all_processes_of_a_gateway_know_the_conversation(serve, mock):
    gateways = [serve(backend=mock.url) for _ in range(2)]
    gateways[0].store.append(routing(("m/2", 0.5), ("m/1", 0.5)))
    for gateway in gateways:
        gateway.app.state.gateway.router.refresh()
    turns = []
    for place in range(6):
        turns.append(user(f"turn {place}"))
        say(gateways[place % 2], turns)
        turns.append(answer(f"turn {place}"))
    assert len(set(kept_of(gateways[0]))) == 1


def test_strangers_who_begin_alike_are_apart(halves):
    for _ in range(3):
        say(halves, [user("hello")])
    assert len({session for _, _, session in kept_of(halves)}) == 3


def test_another_answer_inside_is_another_conversation(halves):
    say(halves, [user("hello")])
    say(halves, [user("hello"), answer("what I never said"), user("so?")])
    assert len({session for _, _, session in kept_of(halves)}) == 2


def test_a_conversation_that_nobody_remembers_is_one_from_its_second_turn_on(halves):
    turns = [user("before the gateway"), answer("was there")]
    for place in range(3):
        turns.append(user(f"turn {place}"))
        say(halves, turns)
        turns.append(answer(f"turn {place}"))
    assert len(set(kept_of(halves))) == 1


def test_a_named_session_or_user_wins(halves):
    say(halves, [user("hello")])
    say(halves, [user("hello"), answer("hello"), user("so?")], user="ann")
    say(halves, [user("hello"), answer("hello"), user("so?")], metadata={"session_id": "s"})
    first, second, third = halves.interactions()
    assert (second.user_id, third.session_id) == ("ann", "s")
    assert len({first.session_id, second.session_id, third.session_id}) == 3


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_damaged_file_of_conversations_is_begun_anew(tmp_path, part):
    path = tmp_path / "conversations.db"
    before = Conversations(path)
    for number in range(1000):
        before.remember(number.to_bytes(32, "big"), "ann", "s")
    before.close()
    content = path.read_bytes()
    damaged = {"head": b"\x00" * 4096 + content[4096:], "body": content[:4096] + b"\xff" * 40_000}
    path.write_bytes(damaged[part])

    found = Conversations(path)
    found.remember(b"said", "ben", "t")
    assert Conversations(path).find(b"said") == ("ben", "t")
