from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import InsufficientDataError
from ratchet.models import Completion
from ratchet.records import LabelledMessage
from ratchet.simulation.routing import (
    build_examples,
    conversation,
    record_answers,
    traffic_of_cycle,
)
from ratchet.simulation.users import ReactionRates, plan_traffic
from tests.simulated_traffic import reactions

START = datetime(2026, 11, 23, 12, tzinfo=UTC)
END = START + timedelta(hours=6)
LABELS = ("billing", "refunds")
MESSAGES = tuple(
    LabelledMessage(text=f"message {n}", label=LABELS[n % len(LABELS)]) for n in range(30)
)


def visits():
    return plan_traffic(
        MESSAGES, traffic_id="t", users=5, start=START, end=END, rng=np.random.default_rng(1)
    )


def answered(planned, text="billing"):
    completions = [Completion(text, 0.2) for _ in planned]
    return record_answers(planned, completions, labels=LABELS, model_version="m/1")


def reacted(planned, interactions, *, seed=0, until=END, rates=None):
    by_id = {interaction.id: interaction for interaction in interactions}
    return reactions(
        planned, by_id, rates=rates or ReactionRates(), labels=LABELS, seed=seed, until=until
    )


def test_the_prompt_names_every_queue_and_ends_with_the_message():
    system, user = conversation(LABELS, "where is my money")
    assert (system.role, user.role, user.content) == ("system", "user", "where is my money")
    assert all(label in system.content for label in LABELS)


def test_examples_keep_order_and_truth_and_ask_what_the_traffic_asks():
    examples = build_examples(MESSAGES, LABELS)
    assert [e.prompt for e in examples] == [m.text for m in MESSAGES]
    assert [e.target for e in examples] == [m.label for m in MESSAGES]
    assert len({e.id for e in examples}) == len(MESSAGES)
    (interaction, *_) = answered(visits())
    (same,) = [e for e in examples if e.prompt == interaction.prompt]
    assert same.messages == interaction.messages


def test_examples_have_the_same_ids_again_and_others_for_other_queues():
    first = {e.id for e in build_examples(MESSAGES, LABELS)}
    assert first == {e.id for e in build_examples(MESSAGES[::-1], LABELS)}
    assert first.isdisjoint(e.id for e in build_examples(MESSAGES, (*LABELS, "security")))


@given(
    size=st.integers(1, 40),
    limit=st.integers(1, 60),
    seed=st.integers(0, 3),
    cycles=st.integers(1, 6),
)
def test_cycles_take_turns_through_all_messages_before_one_comes_again(size, limit, seed, cycles):
    messages = [LabelledMessage(text=f"{n}", label="billing") for n in range(size)]
    taken = []
    for number in range(1, cycles + 1):
        traffic = traffic_of_cycle(messages, number=number, limit=limit, seed=seed)
        assert len(traffic) == len(set(traffic)) == min(limit, size)
        taken += traffic
    for start in range(0, len(taken), size):
        whole_pass = taken[start : start + size]
        assert len(set(whole_pass)) == len(whole_pass)


def test_traffic_is_the_same_for_a_seed_and_another_for_another():
    def traffic(seed):
        return traffic_of_cycle(MESSAGES, number=1, limit=10, seed=seed)

    assert traffic(0) == traffic(0)
    assert traffic(0) != traffic(1)


def test_traffic_without_messages_is_refused():
    with pytest.raises(InsufficientDataError, match="got none"):
        traffic_of_cycle((), number=1, limit=10, seed=0)


def test_an_answer_is_recorded_with_its_visit_and_its_error():
    planned = visits()[:2]
    completions = [Completion("billing", 0.5), Completion("", 9.0, "timeout")]
    good, failed = record_answers(planned, completions, labels=LABELS, model_version="m/1")
    assert (good.id, good.created_at) == (planned[0].interaction_id, planned[0].at)
    assert (good.user_id, good.session_id) == (planned[0].user_id, planned[0].session_id)
    assert (good.prompt, good.response, good.error) == (planned[0].message, "billing", None)
    assert (good.model_version, good.latency_seconds) == ("m/1", 0.5)
    assert (failed.response, failed.error) == ("", "timeout")


def test_reactions_come_within_the_window_and_are_about_its_interactions():
    planned = visits()
    late = ReactionRates(thumbs=1.0, explicit_delay=86_400.0)
    events = reacted(planned, answered(planned), rates=late)
    at = {visit.interaction_id: visit.at for visit in planned}
    assert {event.interaction_id for event in events} <= at.keys()
    assert all(at[event.interaction_id] <= event.created_at <= END for event in events)
    assert any(event.created_at == END for event in events)


def test_reactions_do_not_depend_on_which_chunk_a_visit_is_in():
    planned = visits()
    whole = reacted(planned, answered(planned))
    parts = [
        event
        for first in (20, 0)
        for event in reacted(planned[first : first + 20], answered(planned[first : first + 20]))
    ]
    assert sorted(whole, key=lambda e: e.id) == sorted(parts, key=lambda e: e.id)
    assert whole != reacted(planned, answered(planned), seed=1)


def test_only_wrong_answers_are_corrected_and_to_the_truth():
    planned = visits()
    sure = ReactionRates(correction_wrong=1.0, correction_error=0.0)
    events = reacted(planned, answered(planned), rates=sure)
    truth = {visit.interaction_id: visit.truth for visit in planned}
    corrected = {e.interaction_id: e.value for e in events if e.kind == "correction"}
    assert corrected == {key: label for key, label in truth.items() if label == "refunds"}


def test_an_instruction_takes_the_place_of_the_queues():
    system, _ = conversation(LABELS, "where is it", "Answer in JSON.")
    assert system.content == "Answer in JSON."
    (asked, *_) = build_examples(MESSAGES, LABELS, "Answer in JSON.")
    assert asked.messages[0].content == "Answer in JSON."
    assert asked.id != build_examples(MESSAGES, LABELS)[0].id
    assert asked.id == build_examples(MESSAGES, ("other",), "Answer in JSON.")[0].id
