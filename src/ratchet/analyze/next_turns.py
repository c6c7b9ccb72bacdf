"""A classifier of what users write next: was the user dissatisfied? On sentence embeddings.

    for report in read_by_embeddings(store, encoder, window, now=now):
        print(report.in_words)

It learns from people's labels on the dimension `dissatisfied`, each language by itself: vectors of
the user's next turn and of the answer, how near the turn is to the question before, and how the
rules read it. Half of the labelled conversations teach it, the other half is what it is held
against (`ratchet.judges.next_turn`), so that it counts only where people's labels that it has never
seen show it. Its version names encoder and labels: with other labels it is another one.

Assumptions: labels are of conversations like those that are read. How well it does on conversations
of people is measured in docs/derived.md.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ratchet.analyze.failures.embedding import embed
from ratchet.files.text import counted
from ratchet.judges.next_turn import DISSATISFIED, RULES
from ratchet.models import Encoder
from ratchet.records import derive_id, digest
from ratchet.records.events import REACTIONS, NextTurn
from ratchet.store import EventStore, Window
from ratchet.store.next_turns import NextTurnRow, next_turns, read_answers_in
from ratchet.store.review_labels import human_labels

logger = logging.getLogger(__name__)

NAME: Final = "next-turn-embeddings"
FEWEST, FEWEST_YES = 60, 10
"""The fewest labelled answers to learn from, and of them dissatisfied ones, and others."""
MOST = 20_000
"""Answers of a window that are read, the latest."""
_DISSATISFIED = REACTIONS.index("complained") + 1
_OTHERWISE = REACTIONS.index("moved on") + 1
_FOLDS = 5

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EmbeddedReader:
    """What became of the classifier of a language.

    Attributes:
        language: The language.
        version: Its version; None where it is off.
        learnt_from: Labelled answers that taught it, or that there are.
        read: Answers that it read.
        why_not: Why it is off.
    """

    language: str
    version: str | None = None
    learnt_from: int = 0
    read: int = 0
    why_not: str = ""

    @property
    def in_words(self) -> str:
        """The same in a line."""
        if self.version is None:
            return f"next turns in {self.language} are not read by embeddings: {self.why_not}"
        return (
            f"{self.version} learnt from {counted(self.learnt_from, 'label')} and read "
            f"{counted(self.read, 'answer')}"
        )


def read_by_embeddings(
    store: EventStore, encoder: Encoder, window: Window, *, now: datetime
) -> tuple[EmbeddedReader, ...]:
    """Learn from people's labels, read a window's answers, and keep the readings.

    Args:
        store: The store; it keeps vectors too.
        encoder: Makes vectors of texts.
        window: Whose answers are read, besides the labelled ones that taught nothing.
        now: The time, up to which labels count.
    """
    people = _labels(store, now)
    by_language: dict[str, list[NextTurnRow]] = {}
    for row in next_turns(store, people, reader=RULES):
        by_language.setdefault(row.version.partition("/")[2], []).append(row)
    recent = next_turns(
        store, read_answers_in(store, window, reader=RULES, most=MOST), reader=RULES
    )
    return tuple(
        _language(store, encoder, name, rows, people, recent)
        for name, rows in sorted(by_language.items())
    )


def any_labels(store: EventStore) -> bool:
    """Tell whether people labelled any answer, so that there is something to learn from."""
    return bool(human_labels(store, DISSATISFIED.name))


def _labels(store: EventStore, now: datetime) -> dict[str, bool]:
    """Return what most people say of each labelled answer; a split one is left out.

    The word of who decided between people who disagreed counts in their place.
    """
    said: dict[str, dict[str, str]] = {}
    settled: dict[str, dict[str, str]] = {}
    for label in human_labels(store, DISSATISFIED.name):
        if label.created_at <= now:
            into = settled if label.adjudicates else said
            into.setdefault(label.item_id, {})[label.reviewer] = label.label
    said |= settled
    votes = {key: Counter(given.values()) for key, given in said.items()}
    margins = {key: count["yes"] - count["no"] for key, count in votes.items()}
    return {key: margin > 0 for key, margin in margins.items() if margin}


def _language(
    store: EventStore,
    encoder: Encoder,
    language: str,
    labelled: Sequence[NextTurnRow],
    people: Mapping[str, bool],
    recent: Sequence[NextTurnRow],
) -> EmbeddedReader:
    taught = [row for row in labelled if _teaches(row)]
    truth = np.array([people[row.interaction_id] for row in taught], dtype=np.bool_)
    talks = np.array([f"{row.user_id} {row.session_id}" for row in taught])
    why = _too_few(truth, talks)
    if why:
        return EmbeddedReader(language, learnt_from=len(taught), why_not=why)
    names = [[row.interaction_id, people[row.interaction_id]] for row in taught]
    version = f"{NAME}-{digest([encoder.digest, names])[:8]}/{language}"
    learnt = {row.interaction_id for row in taught}
    to_read = {
        row.interaction_id: row
        for row in (*labelled, *recent)
        if row.interaction_id not in learnt and row.version.partition("/")[2] == language
    }
    rows = list(to_read.values())
    verdicts = classify(
        features(store, encoder, taught),
        truth,
        talks,
        features(store, encoder, rows),
    )
    events = [
        NextTurn(
            id=derive_id("derived", "next_turn", version, row.interaction_id),
            interaction_id=row.interaction_id,
            created_at=row.read_at,
            user_id=row.user_id,
            value=_DISSATISFIED if is_bad else _OTHERWISE,
            judge_version=version,
        )
        for row, is_bad in zip(rows, verdicts, strict=True)
    ]
    store.add_feedback(events)
    return EmbeddedReader(language, version, len(taught), len(events))


def _too_few(truth: BoolArray, talks: NDArray[Any]) -> str:
    """Return why labels cannot teach; "" where they can."""
    yes, no = int(truth.sum()), int((~truth).sum())
    if len(truth) < FEWEST or min(yes, no) < FEWEST_YES:
        return (
            f"it takes {FEWEST} labelled answers in half of the conversations, {FEWEST_YES} of "
            f"them dissatisfied and as many not, got {len(truth)} with {yes} and {no}; label more "
            "with `ratchet judge label`"
        )
    if not all(len(np.unique(truth[seen])) == 2 for seen, _ in _folds(talks)):
        return (
            f"both kinds of labelled answers must be of several conversations, got {yes} that are "
            f"dissatisfied of {counted(len(np.unique(talks[truth])), 'conversation')} and {no} "
            f"others of {counted(len(np.unique(talks[~truth])), 'conversation')}; label more "
            "conversations with `ratchet judge label`"
        )
    return ""


def _folds(conversations: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return rows to learn from and the others, several times; no conversation is in both."""
    from sklearn.model_selection import GroupKFold

    parts = min(_FOLDS, len(np.unique(conversations)))
    if parts < 2:
        return [(np.zeros(0, dtype=np.int64), np.arange(len(conversations)))]
    return list(GroupKFold(parts).split(conversations, groups=conversations))


def _teaches(row: NextTurnRow) -> bool:
    """Tell whether a conversation teaches; the others are what the classifier is held against."""
    return int(digest(["next turn teaches", row.user_id, row.session_id])[:8], 16) % 2 == 0


def features(store: EventStore, encoder: Encoder, rows: Sequence[NextTurnRow]) -> FloatArray:
    """Return what the classifier sees of each answer, shape (n, 2 d + 8)."""
    words, answers, questions = (
        np.asarray(
            embed([getattr(row, name) or " " for row in rows], encoder, cache=store),
            dtype=np.float64,
        ).reshape(len(rows), encoder.dimensions)
        for name in ("words", "answer", "question")
    )
    read = np.zeros((len(rows), len(REACTIONS) + 1))
    read[np.arange(len(rows)), [row.place for row in rows]] = 1.0
    near = (words * questions).sum(axis=1, keepdims=True)
    length = np.array([[len(row.words) / 100.0] for row in rows]).reshape(len(rows), 1)
    return np.hstack([words, answers, near, length, read])


def classify(
    seen: FloatArray, truth: BoolArray, conversations: NDArray[Any], unseen: FloatArray
) -> BoolArray:
    """Fit the classifier on labelled rows and return its predictions for the others.

    A logistic regression on standardised features. The cut-off is the one of the best kappa on
    predictions by models that did not see the conversation, so that it suits rare dissatisfaction.

    Args:
        seen: Rows to learn from, shape (n, d).
        truth: What people say of them, shape (n,).
        conversations: The conversation of each, shape (n,).
        unseen: Rows to tell, shape (m, d).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def model() -> Any:
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))

    if not len(unseen):
        return np.zeros(0, dtype=np.bool_)
    scores = cross_val_predict(
        model(), seen, truth, cv=_folds(conversations), method="predict_proba"
    )[:, 1]
    cut = max(_cuts(scores), key=lambda at: kappa(truth, scores >= at))
    found: BoolArray = model().fit(seen, truth).predict_proba(unseen)[:, 1] >= cut
    return found


def _cuts(scores: FloatArray) -> Iterator[float]:
    yield from np.quantile(scores, np.linspace(0.05, 0.995, 100))


def kappa(first: BoolArray, second: BoolArray) -> float:
    """Return Cohen's kappa of two yes-or-no columns; 0 where chance alone agrees on everything.

    Example:
        >>> yes = np.array([True, True, False, False])
        >>> kappa(yes, np.array([True, False, False, False]))
        0.5
    """
    agree = float(np.mean(first == second))
    share, other = float(first.mean()), float(second.mean())
    chance = share * other + (1.0 - share) * (1.0 - other)
    return (agree - chance) / (1.0 - chance) if chance < 1.0 else 0.0
