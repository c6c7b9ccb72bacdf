"""Sheets for people, out of the store: pairs that the gate waits for, and the review queue.

`ratchet review --sheet` brings back what was filled in.
"""

from __future__ import annotations

from dataclasses import replace

from ratchet.errors import InsufficientDataError, InvalidInputError
from ratchet.export.grammar import Request
from ratchet.export.parts import Tally
from ratchet.export.redacting import Texts, texts_redactor
from ratchet.files.text import printable
from ratchet.judges.label_sheet import sheet_text
from ratchet.judges.pair_labels import (
    compared_in_words,
    pairs_on,
    said_about,
    waiting_sheets,
)
from ratchet.judges.prompts import Item
from ratchet.records import (
    Cycle,
    Decision,
    Interaction,
    LabelSheet,
    ReviewItem,
    with_all_texts,
)
from ratchet.review.corrections import ids_about
from ratchet.review.queue import open_items
from ratchet.review.sheet import review_sheet
from ratchet.store import EventStore
from ratchet.store.history import History

MOST_ITEMS = 200
_GONE = "its answer is stored no more"


def sheet_for(store: EventStore, history: History, request: Request, tally: Tally) -> str:
    """Return a sheet as text: of pairs where some wait or are named, else of the review queue.

    Raises:
        InsufficientDataError: Nothing waits for people.
        InvalidInputError: No cycle or decision is named so, or nothing of it is compared by people.
    """
    redact = texts_redactor(tally) if request.redacts else None
    named = request.cycle is not None or request.decision is not None
    if request.sheet == "items" and named:
        raise InvalidInputError(
            "items of the review queue are of no cycle, got --cycle or --decision; leave it out, "
            "or take --of pairs"
        )
    record = None if request.sheet == "items" else _pairs_wanted(store, request)
    if record is not None:
        return _pair_sheet(store, record, redact, tally)
    if request.sheet != "pairs":
        text = _item_sheet(store, history, request, redact, tally)
        if tally.rows:
            return text
    raise InsufficientDataError(
        "a sheet needs something that waits for people, got nothing; pairs of answers wait once a "
        "policy on win_rate is at the gate, and answers once a safety rule or a user flags them"
    )


def _pairs_wanted(store: EventStore, request: Request) -> LabelSheet | None:
    """Return the pairs that are asked for: those of a cycle, else the latest that wait."""
    if request.cycle is None and request.decision is None:
        waiting = waiting_sheets(store)
        return waiting[-1][0] if waiting else None
    cycle_id = _cycle_id(store, request)
    found = [one for one in store.records(LabelSheet) if one.cycle_id == cycle_id]
    if not found:
        raise InvalidInputError(
            f"a sheet of pairs needs a cycle whose answers people compare, got cycle "
            f"{cycle_id[:8]}, which has none; leave --cycle and --decision out for what waits"
        )
    return found[-1]


def _cycle_id(store: EventStore, request: Request) -> str:
    cycles = store.records(Cycle)
    if request.decision is not None:
        start, kind = request.decision, "--decision"
        found = {one.cycle_id for one in store.records(Decision) if one.id.startswith(start)}
    else:
        start, kind = str(request.cycle), "--cycle"
        asked = {one.cycle_id for one in store.records(LabelSheet)}
        ids = {one.id for one in cycles} | asked
        found = {one.id for one in cycles if str(one.number) == start}
        found = found or {key for key in ids if key.startswith(start)}
    if len(found) != 1:
        raise InvalidInputError(
            f"{kind} must name one, got {printable(start, 40)!r}, which names {len(found)}; "
            "`ratchet status --json` shows ids"
        )
    return found.pop()


def _pair_sheet(store: EventStore, record: LabelSheet, redact: Texts | None, tally: Tally) -> str:
    pairs = pairs_on(store, record)
    tally.rows["pairs"] += len(pairs)
    compared = said_about(store, record, pairs).compared
    tally.notes.append(
        f"compared: {compared_in_words(compared, record.wanted)}; fill in the column "
        "winner (a, b or "
        "tie), then `ratchet review --sheet FILE`"
    )
    shown = pairs if redact is None else [_redacted_pair(pair, redact) for pair in pairs]
    return sheet_text(pairs, [pair.id for pair in pairs], shown={one.id: one for one in shown})


def _redacted_pair(pair: Item, redact: Texts) -> Item:
    answer, other = redact([pair.answer, pair.other or ""])
    conversation = tuple(with_all_texts(pair.conversation, redact))
    return replace(pair, answer=answer, other=other, conversation=conversation)


def _item_sheet(
    store: EventStore, history: History, request: Request, redact: Texts | None, tally: Tally
) -> str:
    items = open_items(store, limit=request.most or MOST_ITEMS)
    about = _interactions(store, history, items)
    if redact is not None:
        about = {key: _redacted_turn(one, redact) for key, one in about.items()}
    text, gone = review_sheet(items, about)
    if gone:
        tally.left_out[_GONE] += gone
    if len(items) > gone:
        tally.rows["items"] += len(items) - gone
        tally.notes.append(
            "fill in the column label (violation or fine; of a correction confirmed or rejected), "
            "then `ratchet review --sheet FILE`"
        )
    return text


def _interactions(
    store: EventStore, history: History, items: tuple[ReviewItem, ...]
) -> dict[str, Interaction]:
    ids = ids_about(items)
    known = store.stored_interactions(ids)
    gone = [key for key in ids if key not in known]
    return known | (history.fetch_interactions(gone) if gone and history.cursor() else {})


def _redacted_turn(interaction: Interaction, redact: Texts) -> Interaction:
    *messages, answer = with_all_texts([*interaction.messages, interaction.answer], redact)
    return interaction.answered(tuple(messages), answer)
