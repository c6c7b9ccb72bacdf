"""Rows of training sets without personal data, and which of them still differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.decontamination import SAME, leaking
from ratchet.improve.curation.rows import ANSWERS, Row, TrainingRow
from ratchet.records import digest, with_all_texts, with_conversations_changed
from ratchet.records.tool_calls import MARK, as_turn, written
from ratchet.safety.redaction import Redacted, redactor


def redact_rows(rows: Sequence[Row], config: CurationConfig) -> tuple[list[Row], Redacted]:
    """Take personal data out of everything that users and models wrote; system prompts stay."""
    found = redactor(config.redaction)
    passes: list[Redacted] = []

    def redact(texts: Sequence[str]) -> Sequence[str]:
        passes.append(found.redact(texts))
        return passes[-1].texts

    conversations = with_conversations_changed([row.messages for row in rows], redact)
    names = [ANSWERS[type(row)] for row in rows]
    spans = [[getattr(row, name) for name in of] for row, of in zip(rows, names, strict=True)]
    texts = iter(redacted_answers([text for span in spans for text in span], redact))
    clean = []
    for row, said, of in zip(rows, conversations, names, strict=True):
        answers: dict[str, Any] = {name: next(texts) for name in of}
        changed = replace(row, messages=said, **answers)
        clean.append(row if changed == row else changed)
    return clean, Redacted.together(passes, config.redaction.sample)


def redacted_answers(
    answers: Sequence[str], redact: Callable[[Sequence[str]], Sequence[str]]
) -> list[str]:
    """Return answers redacted; of those that call tools the words and each argument alone.

    Args:
        answers: As a model wrote them, calls in blocks.
        redact: Takes personal data out of texts.
    """
    turns = {place: as_turn(text) for place, text in enumerate(answers) if MARK in text}
    calling = [place for place, turn in turns.items() if turn.tool_calls]
    plain = [place for place in range(len(answers)) if place not in set(calling)]
    clean = dict(zip(plain, redact([answers[place] for place in plain]), strict=True))
    if calling:
        said = with_all_texts([turns[place] for place in calling], redact)
        clean |= dict(zip(calling, map(written, said), strict=True))
    return [clean[place] for place in range(len(answers))]


def apart(
    rows: Sequence[Row], clean: Sequence[Row], protected: Collection[str], config: CurationConfig
) -> list[int]:
    """Return the places of rows that are no copy of another, or of a test, without personal data.

    Of several prompts that are the same now, the first with the answer that most of them have
    stays, and none where two answers are as frequent.

    Args:
        rows: As they were.
        clean: The same rows, redacted.
        protected: Prompts that the gate tests on.
        config: How personal data and leaks are found.
    """
    if all(row == other for row, other in zip(rows, clean, strict=True)):
        return list(range(len(rows)))
    gone = set(leaking(clean, protected, config.decontamination))
    # more than the same would be too much: many a message holds "my address is <EMAIL_ADDRESS>"
    tested = set(redactor(config.redaction).redact(sorted(protected)).texts) - set(protected)
    alike = leaking(clean, tested, config.decontamination)
    gone |= {place for place, how in alike.items() if how == SAME}
    groups: dict[str, list[int]] = {}
    for place, row in enumerate(clean):
        if place not in gone:
            groups.setdefault(_asked(row), []).append(place)
    for places in groups.values():
        if len({_asked(rows[place]) for place in places}) > 1:
            said = [_said(clean[place]) for place in places]
            (most, count), *others = Counter(said).most_common(2)
            tie = bool(others) and others[0][1] == count
            gone.update(places)
            if not tie:
                gone.remove(places[said.index(most)])
    return [place for place in range(len(rows)) if place not in gone]


def _asked(row: Row) -> str:
    """Name what is asked; where an answer is judged, with the answers."""
    turns = [turn.canonical() for turn in row.messages]
    answers = [] if isinstance(row, TrainingRow) else _answers(row)
    return digest([turns, list(row.tools or ()), answers])


def _said(row: Row) -> object:
    return row.target if isinstance(row, TrainingRow) else getattr(row, "desirable", None)


def _answers(row: Row) -> list[str]:
    return [getattr(row, name) for name in ANSWERS[type(row)]]
