"""The grammar of customer messages."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from ratchet.errors import InvalidInputError
from ratchet.records import LabelledMessage
from ratchet.simulation import messages, phrases
from ratchet.simulation.messages import INTENTS, QUEUE_GUIDE, QUEUES, capacity, support_messages


@pytest.fixture(scope="module")
def many() -> tuple[LabelledMessage, ...]:
    return support_messages(np.random.default_rng(20), 6_000)


def test_six_thousand_messages_are_distinct_after_lower_casing_and_collapsing_space(many):
    keys = {" ".join(message.text.lower().split()) for message in many}
    assert len(keys) == len(many) == 6_000


def test_no_two_messages_differ_in_their_digits_alone(many):
    assert len({re.sub(r"\d", "0", message.text.lower()) for message in many}) == len(many)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100, 803])
def test_queues_are_balanced_to_within_one_message(count):
    counts = Counter(
        message.label for message in support_messages(np.random.default_rng(count), count)
    )
    sizes = [counts[queue] for queue in QUEUES]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1


def test_queues_are_shuffled(many):
    # Neighbours of the same queue: 1/8 in a shuffled sequence, 0 in a round-robin one.
    same = np.mean([a.label == b.label for a, b in pairwise(many)])
    assert abs(same - 1 / 8) < 4 * np.sqrt(1 / 8 * 7 / 8 / len(many))


def test_the_same_seed_gives_the_same_messages_and_another_seed_does_not():
    first, again, other = (support_messages(np.random.default_rng(seed), 200) for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_the_grammar_gives_at_least_six_thousand_and_up_to_its_stated_capacity():
    assert capacity() >= 6_000
    assert len(support_messages(np.random.default_rng(0), capacity())) == capacity()


@pytest.mark.parametrize("count", [-1, 10**9])
def test_asking_for_more_than_the_grammar_can_give_names_rule_value_and_way_out(count):
    with pytest.raises(InvalidInputError, match=rf"from 0 to {capacity()}.*got {count}; ask for"):
        support_messages(np.random.default_rng(0), count)


def test_one_more_than_the_capacity_is_refused():
    with pytest.raises(InvalidInputError):
        support_messages(np.random.default_rng(0), capacity() + 1)


def test_there_are_eight_short_lower_case_queues_each_with_ten_intents_or_more():
    assert len(QUEUES) == len(set(QUEUES)) == 8
    assert all(queue == queue.lower() and 1 <= len(queue.split()) <= 2 for queue in QUEUES)
    assert all(len(intents) >= 10 for intents in INTENTS.values())
    assert set(QUEUE_GUIDE) == set(phrases.CONTEXTS) == set(QUEUES)
    assert set(phrases.CALM_QUEUES) < set(QUEUES)


def test_at_most_fifteen_percent_of_messages_contain_the_name_of_their_queue(many):
    telling = [message for message in many if message.label in message.text.lower()]
    assert len(telling) <= 0.15 * len(many)


def test_most_messages_have_four_to_thirty_words(many):
    words = np.array([len(message.text.split()) for message in many])
    assert np.mean((words >= 4) & (words <= 30)) > 0.95
    assert words.max() <= 40


def test_people_write_in_many_ways(many):
    texts = [message.text for message in many]
    shares = {
        "all lower case": np.mean([text == text.lower() for text in texts]),
        "shouting": np.mean([bool(re.search(r"\b[A-Z]{4,} [A-Z]{2,}", text)) for text in texts]),
        "no full stop": np.mean([text[-1].isalnum() for text in texts]),
        "a question": np.mean(["?" in text for text in texts]),
        "chat abbreviations": np.mean(
            [bool(re.search(r"\b(u|ur|pls|thx|ngl|wtf|idk)\b", text.lower())) for text in texts]
        ),
        "a number": np.mean([bool(re.search(r"\d", text)) for text in texts]),
    }
    assert all(0.02 < share < 0.7 for share in shares.values()), shares


def test_texts_hold_nothing_of_the_grammar_and_no_stray_blanks(many):
    for message in many:
        assert not re.search(r"[{}()|~_^<>]", message.text), message.text
        assert message.text == " ".join(message.text.split())
        assert not re.search(r"\s[,.?]", message.text), message.text


@pytest.mark.parametrize("queue", QUEUES)
def test_every_wording_is_well_formed_and_expands(queue):
    wordings = [wording for group in INTENTS[queue].values() for wording in group]
    for wording in [*wordings, *phrases.CONTEXTS[queue]]:
        assert wording.count("(") == wording.count(")"), wording
        assert set(re.findall(r"\{(\w+)\}", wording)) <= set(phrases.SLOTS), wording
        text = messages._expand(wording.removeprefix("~"), np.random.default_rng(0))
        assert text, wording
        assert not re.search(r"[{}()|~]", text), wording


def test_every_intent_has_a_sentence():
    for intents in INTENTS.values():
        for name, templates in intents.items():
            assert any(not template.startswith("~") for template in templates), name


@pytest.mark.parametrize(
    ("template", "ways"),
    [("a", 1), ("(a|b|)", 3), ("(a|b (c|d)) (e|f)", 6), ("{town} (x|in {town})", 9 * (1 + 9))],
)
def test_wordings_are_counted_as_products_of_sums(template, ways):
    assert len(phrases.SLOTS["town"]) == 9
    assert messages._wordings(template) == ways


def test_a_typo_changes_one_word_by_one_edit_and_keeps_its_first_letter():
    rng = np.random.default_rng(1)
    for _ in range(200):
        before, after = (
            "my parcel is 12345 late",
            messages._mistyped("my parcel is 12345 late", rng),
        )
        changed = [
            (old, new) for old, new in zip(before.split(), after.split(), strict=True) if old != new
        ]
        assert len(changed) <= 1
        for old, new in changed:
            assert old in {"parcel", "late"}
            assert new[0] == old[0]
            assert abs(len(new) - len(old)) <= 1


def test_a_text_without_long_words_gets_no_typo():
    assert messages._mistyped("no u 12345", np.random.default_rng(0)) == "no u 12345"


def test_a_linear_classifier_finds_the_task_neither_trivial_nor_impossible(many):
    texts, labels = [m.text for m in many], [m.label for m in many]
    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=10.0, max_iter=1_000)
    )
    model.fit(texts[:2_000], labels[:2_000])
    assert 0.80 <= model.score(texts[2_000:], labels[2_000:]) <= 0.995
