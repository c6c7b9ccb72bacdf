"""Items of a judge, for people to label: answers, or whole sessions, as the judge is shown them.

    rows, tally = items_to_label(store, spec, window, most=50, redacts=True)

A row can be filled in (`label`, `reviewer`) for `ratchet judge label`, or judged from the file with
`ratchet judge run`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ratchet.export.parts import Tally
from ratchet.export.redacting import texts_redactor
from ratchet.judges.on_store import sample_for
from ratchet.judges.rubrics import JudgeSpec
from ratchet.judges.sessions import turns_of
from ratchet.records import (
    Interaction,
    Message,
    transcript,
    with_conversations_changed,
)
from ratchet.store import EventStore, Window
from ratchet.store.sessions import up_to


def items_to_label(
    store: EventStore, spec: JudgeSpec, window: Window, *, most: int, redacts: bool
) -> tuple[list[dict[str, Any]], Tally]:
    """Return a sample of a window's answers or sessions, whichever a judge judges.

    Args:
        store: The store.
        spec: The judge.
        window: Where answers, or the last answers of sessions, are looked for.
        most: How many at most; the same ones again of the same window.
        redacts: Whether personal data are taken out; what the application wrote stays.

    Returns:
        Rows with item_id, dimension, what is judged (as people read it in `shown`, and as
        `ratchet judge run` takes it), `unit` of a session, and an empty label and reviewer; and
        what was taken out.
    """
    tally = Tally()
    answers = sample_for(spec, store, window, most=most)
    talks = [_talk(store, spec, answer) for answer in answers]
    if redacts:
        talks = [tuple(talk) for talk in with_conversations_changed(talks, texts_redactor(tally))]
    tools = _tools(store, answers)
    rows = [
        {
            "item_id": answer.id,
            "dimension": spec.dimension.name,
            "shown": transcript(talk),
            "messages": [turn.canonical() for turn in talk[:-1]],
            "answer": talk[-1].canonical(),
            **({"tools": tools[answer.tools]} if answer.tools in tools else {}),
            **({"unit": spec.unit} if spec.unit != "answer" else {}),
            "label": "",
            "reviewer": "",
        }
        for answer, talk in zip(answers, talks, strict=True)
    ]
    return rows, tally


def _talk(store: EventStore, spec: JudgeSpec, answer: Interaction) -> tuple[Message, ...]:
    if spec.unit == "answer":
        return (*answer.messages, answer.answer)
    return (*turns_of(up_to(store, answer) or [answer]), answer.answer)


def _tools(store: EventStore, answers: Sequence[Interaction]) -> dict[str | None, Any]:
    ids = {answer.tools for answer in answers if answer.tools is not None}
    return {key: found.body for key, found in store.definitions(ids).items()}
