"""A classifier on embeddings reads next turns where labels teach it, and counts if they agree."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from ratchet.analyze.next_turns import FEWEST, NAME, kappa, read_by_embeddings
from ratchet.collect.derived import derive_signals
from ratchet.judges.next_turn import in_words, validate_next_turns
from ratchet.judges.usable import usable_versions
from ratchet.models import MINILM, SentenceEncoder
from ratchet.records import HumanLabel
from ratchet.store import EventStore, Window
from ratchet.store.next_turns import next_turns
from tests.collect.conversations import START, asked

NOW = START + timedelta(hours=2)
ALL = Window(START - timedelta(days=1), START + timedelta(days=2))
# what people write who are dissatisfied, and the rules do not know
BAD = ("hmpf, you again with that", "are we going round in circles", "my patience is at its end")
GOOD = (
    "and can you tell me the opening hours",
    "book the second one for two people",
    "which is it",
)


ONE = "talk-2"
"""A conversation of the half that teaches."""


class WordEncoder:
    """Counts of hashed words as vectors of length one."""

    digest, dimensions = "words", 64

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        found = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.split():
                found[row, zlib.crc32(word.encode()) % self.dimensions] += 1.0
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1.0)


def fill(store: EventStore, count: int, labelled: int) -> None:
    """Store conversations of which every third user is dissatisfied; people label the first."""
    for n in range(count):
        bad = n % 3 == 0
        words = (BAD if bad else GOOD)[n // 3 % 3] + f" {n}"
        turns, session = ("what is it called?", f"it is number {n}"), f"s{n}"
        store.add_interactions(
            [
                asked(f"a{n}", turns[0], answer=turns[1], session=session, user=f"u{n}"),
                asked(f"b{n}", *turns, words, at=1.0, session=session, user=f"u{n}"),
            ]
        )
        if n < labelled:
            store.append(
                HumanLabel(
                    id=f"l{n}", created_at=START, item_id=f"a{n}", dimension="dissatisfied",
                    label="yes" if bad else "no", reviewer="ben",
                )
            )  # fmt: skip
    derive_signals(store, now=NOW)


def readings(store: EventStore) -> dict[str, float]:
    ids = [f"a{n}" for n in range(500)]
    return {
        row.interaction_id: row.number or 0.0
        for row in store.feedback_about(ids)
        if row.kind == "next_turn" and (row.text or "").startswith(NAME)
    }


def test_what_followed_an_answer_is_found_with_the_words_of_the_user(store: EventStore) -> None:
    fill(store, 2, labelled=0)
    first, second = next_turns(store, ["a0", "a1", "b0"], reader="next-turn-rules")
    assert (first.interaction_id, first.answer, first.words) == (
        "a0", "it is number 0", f"{BAD[0]} 0",
    )  # fmt: skip
    assert (second.question, second.words) == ("what is it called?", f"{GOOD[0]} 1")


def test_it_counts_where_labels_that_it_has_not_seen_agree_and_the_rules_do_not(
    store: EventStore,
) -> None:
    fill(store, 330, labelled=300)
    (report,) = read_by_embeddings(store, WordEncoder(), ALL, now=NOW)
    assert (report.language, report.why_not) == ("en", "")
    read = readings(store)
    assert len(read) == report.read == 330 - report.learnt_from  # what taught it is not read
    assert report.learnt_from > FEWEST
    for key, value in read.items():
        assert value == (1.0 if int(key[1:]) % 3 == 0 else 4.0)
    records = validate_next_turns(store, rng=np.random.default_rng(0), now=NOW)
    assert usable_versions(store) == {report.version}
    assert str(report.version) in in_words(records)
    again = read_by_embeddings(store, WordEncoder(), ALL, now=NOW)
    assert again == (report,)
    assert readings(store) == read


def test_with_few_labels_it_is_off_and_says_how_many_it_takes(store: EventStore) -> None:
    fill(store, 40, labelled=40)
    (report,) = read_by_embeddings(store, WordEncoder(), ALL, now=NOW)
    assert report.version is None
    assert report.in_words.startswith("next turns in en are not read by embeddings: it takes 60")
    assert readings(store) == {}


def test_labels_of_one_conversation_are_too_few(store: EventStore) -> None:
    for n in range(80):
        turns, bad = ("what is it called?", f"it is number {n}"), n % 3 == 0
        words = (BAD if bad else GOOD)[n // 3 % 3] + f" {n}"
        store.add_interactions(
            [
                asked(f"a{n}", turns[0], answer=turns[1], session=ONE, at=n * 0.5),
                asked(f"b{n}", *turns, words, session=ONE, at=n * 0.5 + 0.1),
            ]
        )
        store.append(
            HumanLabel(
                id=f"l{n}", created_at=START, item_id=f"a{n}", dimension="dissatisfied",
                label="yes" if bad else "no", reviewer="ben",
            )
        )  # fmt: skip
    derive_signals(store, now=NOW)
    (report,) = read_by_embeddings(store, WordEncoder(), ALL, now=NOW)
    assert (report.version, report.learnt_from) == (None, 80)
    assert "27 that are dissatisfied of 1 conversation and 53 others of 1" in report.in_words


def test_kappa_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random(200) < 0.3, rng.random(200) < 0.4
    assert kappa(one, other) == pytest.approx(cohen_kappa_score(one, other))


@pytest.mark.slow
def test_minilm_reads_next_turns(store: EventStore) -> None:
    fill(store, 200, labelled=200)
    (report,) = read_by_embeddings(store, SentenceEncoder.load(MINILM), ALL, now=NOW)
    right = [
        value == (1.0 if int(key[1:]) % 3 == 0 else 4.0) for key, value in readings(store).items()
    ]
    assert report.read == len(right)
    assert np.mean(right) > 0.95
