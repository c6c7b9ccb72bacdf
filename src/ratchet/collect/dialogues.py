"""Harvest a log of whole dialogues: what a bot answered, the thumbs and the stars it got.

The format is that of the logs of ConvAI2's volunteers, JSON Lines or a JSON array, plain or gzip,
one dialogue an object:

    dialog             messages in order: sender ("participant1" or "participant2"), text,
                       sender_class ("Human" or "Bot"), evaluation_score (1 thumb up, 0 thumb
                       down, null none)
    participant1_id    class ("User" or "Bot") and user_id; participant2_id alike
    start_time         ISO 8601, UTC where it has no time zone, or any form that
                       `ratchet.collect.values` reads; end_time alike
    eval_score         1 to 5 stars for the whole dialogue, null none
    dialog_id          optional

What breaks a rule of the records (six stars, a NUL in a text) is handed to `ingest`, which sets it
aside. What never becomes a record (a line that is not JSON, a dialogue without a time or a bot, a
message that answers nobody) is set aside here, each with its own reason. Nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, cast

from ratchet.collect.ingest import MAX_LINE_BYTES, ingest_placed
from ratchet.collect.recognising import Recogniser
from ratchet.collect.report import IngestReport
from ratchet.collect.sink import EventSink
from ratchet.collect.values import moment as moment_of
from ratchet.collect.values import thumb
from ratchet.errors import InvalidInputError
from ratchet.files.rows import Row, read_rows
from ratchet.files.text import printable, printable_path
from ratchet.records import SetAside, derive_id

LINES_WITHOUT_DIALOGUE = 1_000

_RAW_CHARACTERS = 200

EventRow = dict[str, Any]


def harvest_dialogues(
    path: Path,
    store: EventSink,
    *,
    now: datetime,
    system: str = "convai2",
    progress: Callable[[int], None] = lambda _: None,
    known: Recogniser | None = None,
) -> IngestReport:
    """Store the answers and the feedback of a log of dialogues. See `read_dialogues`.

    Harvesting a log again, or a later export that holds it, changes nothing that is stored.

    Args:
        path: The log; it is read line by line.
        store: Where events and set-aside rows go.
        now: Time that the set-aside rows carry.
        system: What the bots belong to: Bot 006 answers as version `convai2/bot-006`.
        progress: See `ratchet.collect.ingest.ingest_file`.
        known: See there.

    Raises:
        InvalidInputError: The file cannot be read or is no log of dialogues.
    """
    events = read_dialogues(path, now=now, system=system)
    return ingest_placed(events, store, source=path.name, now=now, progress=progress, known=known)


def read_dialogues(
    path: Path, *, now: datetime, system: str = "convai2"
) -> Iterator[tuple[str, EventRow | SetAside]]:
    """Yield the events that a log of dialogues holds and the rows to set aside, with their places.

    Each message of the bot after the person's first one is an interaction: its conversation is what
    both said before it, its session the dialogue, and it continues the answer before it. The thumb
    of a message is feedback on it; the stars and the end of the session (its length in seconds) are
    feedback on the last answer.

    The log has no time of a message or a thumb. A message is placed between start and end of its
    dialogue by its position: the first at the start, the last at the end, the others at equal
    distances. A thumb has its message's time, stars and session end that of the dialogue's end.

    Ids are derived from `dialog_id`, or else from start and participants, and from the message's
    position, so that neither the file's name nor the order of its lines matters.

    Args:
        path: The log; it is read as the rows are asked for.
        now: Time that the set-aside rows carry.
        system: What the bots belong to; prefix of the versions, and the segment.

    Raises:
        InvalidInputError: The file cannot be read, or its rows (the first 1,000 where it has more)
            hold no dialogue. An empty file is an empty log.
    """
    strangers: list[SetAside] | None = []
    needs = [("dialog",)]
    opened = read_rows(path, needs=needs, longest=MAX_LINE_BYTES, may_be_empty=True)
    with opened as rows:
        for row in rows:
            here = _Place(path.name, row, now)
            try:
                value = _object(row)
            except InvalidInputError as error:
                rejected = here.reject(str(error))
                if strangers is None:
                    yield row.position, rejected
                    continue
                strangers.append(rejected)
                if len(strangers) == LINES_WITHOUT_DIALOGUE:
                    _refuse(path, strangers)
                continue
            yield from ((stranger.position, stranger) for stranger in strangers or ())
            strangers = None
            yield from _rows(value, here, system)
    if strangers:
        _refuse(path, strangers)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row stands, for what is set aside."""

    source: str
    row: Row
    now: datetime

    def position(self, message: int | None = None) -> str:
        return self.row.position + ("" if message is None else f", message {message}")

    def reject(self, reason: str, message: int | None = None) -> SetAside:
        source = printable(self.source, _RAW_CHARACTERS)
        position, raw = self.position(message), self.row.received
        return SetAside(
            id=derive_id(source, position, reason, raw),
            created_at=self.now,
            source=source,
            position=position,
            reason=reason,
            raw=raw,
        )


@dataclass(frozen=True, slots=True)
class _Dialogue:
    """A dialogue whose time, participants and messages are known.

    Attributes:
        messages: What was said, as the records write it.
        scores: The log's score of each message; None where there is none.
    """

    key: str
    start: datetime
    end: datetime
    version: str
    person: str
    messages: tuple[Mapping[str, object], ...]
    scores: tuple[object, ...]
    stars: object

    def moment(self, index: int) -> datetime:
        gaps = max(1, len(self.messages) - 1)
        return self.start + (self.end - self.start) * index / gaps

    def answer_id(self, index: int) -> str:
        return derive_id(self.key, index)


def _rows(
    value: Mapping[str, Any], place: _Place, system: str
) -> Iterator[tuple[str, EventRow | SetAside]]:
    """Yield the rows of one dialogue, each with its place."""
    try:
        dialogue = _dialogue(value, system)
    except InvalidInputError as error:
        yield place.position(), place.reject(str(error))
        return
    roles = [message["role"] for message in dialogue.messages]
    first = roles.index("user") if "user" in roles else len(roles)
    last = max((i for i, role in enumerate(roles) if role == "assistant" and i > first), default=-1)
    for index, (role, score) in enumerate(zip(roles, dialogue.scores, strict=True)):
        where = place.position(index)
        if role == "assistant" and index > first:
            before = next((i for i in range(index - 1, first, -1) if roles[i] == role), None)
            yield where, _interaction(dialogue, index, before, system)
            if score is not None:
                at = dialogue.moment(index)
                yield where, _feedback(dialogue, index, "thumbs", _thumb(score), at)
        elif problem := _not_an_answer(role, score):
            yield where, place.reject(problem, index)
    if last >= 0:
        yield from ((place.position(), row) for row in _on_the_last_answer(dialogue, last))
    else:
        yield place.position(), place.reject(_without_answer(dialogue.stars))


def _on_the_last_answer(dialogue: _Dialogue, last: int) -> Iterator[EventRow]:
    if dialogue.stars is not None:
        yield _feedback(dialogue, last, "stars", dialogue.stars, dialogue.end)
    seconds = (dialogue.end - dialogue.start).total_seconds()
    yield _feedback(dialogue, last, "session_end", seconds, dialogue.end)


def _interaction(dialogue: _Dialogue, index: int, before: int | None, system: str) -> EventRow:
    """Return the answer at a place; `before` is that of the answer that it continues."""
    continues = {} if before is None else {"continues": dialogue.answer_id(before)}
    return continues | {
        "id": dialogue.answer_id(index),
        "session_id": dialogue.key,
        "user_id": dialogue.person,
        "created_at": dialogue.moment(index),
        "model_version": dialogue.version,
        "messages": dialogue.messages[:index],
        "response": dialogue.messages[index]["content"],
        "segment": system,
    }


def _feedback(
    dialogue: _Dialogue, index: int, kind: str, value: object, created_at: datetime
) -> EventRow:
    return {
        "id": derive_id(dialogue.answer_id(index), kind),
        "interaction_id": dialogue.answer_id(index),
        "created_at": created_at,
        "user_id": dialogue.person,
        "kind": kind,
        "value": value,
    }


def _thumb(score: object) -> object:
    """Return a score as `ingest` takes it for a thumb: 0 is one in this format."""
    return "down" if str(score) in ("0", "0.0") else thumb(score)


def _not_an_answer(role: object, score: object) -> str | None:
    """Return why a message is set aside, or None for what a person said."""
    given = "no thumb" if score is None else f"a thumb {printable(str(_thumb(score)))}"
    if role == "assistant":
        return (
            "a bot's message must answer a person to be an interaction, got an opening with "
            f"{given}; count it from the log"
        )
    if score is not None:
        return f"a thumb must be on a bot's message, got {given} on a person's; check the export"
    return None


def _without_answer(stars: object) -> str:
    given = "no stars" if stars is None else f"{printable(str(stars))} stars"
    return (
        "a dialogue must hold an answer of the bot to the person, got none, with "
        f"{given}; there is nothing that its feedback is about"
    )


def _dialogue(value: Mapping[str, Any], system: str) -> _Dialogue:
    """Return the dialogue of an object of the log.

    Raises:
        InvalidInputError: A time is missing or broken, it is not between a person and a bot, or a
            message is not one of theirs.
    """
    start, end = _times(value)
    bot_sender, bot, person = _participants(value)
    messages, scores = [], []
    for index, message in enumerate(value["dialog"]):
        role = _role(message, index, bot_sender)
        messages.append({"role": role, "content": message.get("text")})
        scores.append(message.get("evaluation_score"))
    name = value.get("dialog_id")
    parts = (start.isoformat(), person, bot) if name in (None, "") else (name,)
    return _Dialogue(
        key=derive_id("dialogue", system, *parts),
        start=start,
        end=end,
        version=f"{system}/{'-'.join(bot.lower().split())}",
        person=person,
        messages=tuple(messages),
        scores=tuple(scores),
        stars=value.get("eval_score"),
    )


def _times(value: Mapping[str, Any]) -> tuple[datetime, datetime]:
    missing = [name for name in ("start_time", "end_time") if value.get(name) is None]
    if missing:
        raise InvalidInputError(
            "a dialogue must have start_time and end_time, got no "
            f"{' and no '.join(missing)}; what has no time cannot be charted"
        )
    start, end = (_moment(value[name], name) for name in ("start_time", "end_time"))
    if end < start:
        raise InvalidInputError(
            f"a dialogue must not end before it starts, got {start.isoformat()} to "
            f"{end.isoformat()}; correct one of the two"
        )
    return start, end


def _moment(value: object, name: str) -> datetime:
    try:
        known = moment_of(value)
        moment = (
            known if isinstance(known, datetime) else datetime.fromisoformat(cast("str", value))
        )
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"{name} must be an ISO 8601 time or seconds since 1970, got "
            f"{printable(repr(value))}; write it as 2018-11-03T12:00:00Z"
        ) from error


def _participants(value: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return how messages name the bot, the bot's id and the person's."""
    bots: list[tuple[str, str]] = []
    people: list[str] = []
    for sender in ("participant1", "participant2"):
        who = value.get(f"{sender}_id")
        name = who.get("user_id") if isinstance(who, dict) else None
        if not isinstance(who, dict) or not isinstance(name, str) or not name.strip():
            raise InvalidInputError(
                "a dialogue must name its participants by user_id and class, got "
                f"{printable(repr(who))} for {sender}_id; check the export"
            )
        if who.get("class") == "Bot":
            bots.append((sender, name))
        else:
            people.append(name)
    if len(bots) != 1:
        raise InvalidInputError(
            f"a dialogue must be between a person and a bot, got {len(bots)} bots; "
            "leave out what people or bots said among themselves"
        )
    return *bots[0], people[0]


def _role(message: object, index: int, bot_sender: str) -> str:
    sender = message.get("sender") if isinstance(message, Mapping) else None
    if not isinstance(message, Mapping) or sender not in ("participant1", "participant2"):
        raise InvalidInputError(
            "a message must be an object whose sender is participant1 or participant2, got "
            f"{printable(repr(message))} as message {index}; check the export"
        )
    sender_class = message.get("sender_class")
    if sender_class is not None and (sender_class == "Bot") != (sender == bot_sender):
        raise InvalidInputError(
            "a message's sender_class must agree with the participant's class, got "
            f"{printable(repr(sender_class))} for {sender} as message {index}; check the export"
        )
    return "assistant" if sender == bot_sender else "user"


def _object(row: Row) -> Mapping[str, Any]:
    """Return the object of a row that looks like a dialogue.

    Raises:
        InvalidInputError: It cannot be used, or has no list `dialog`.
    """
    value = row.given(as_json=["dialog", "participant1_id", "participant2_id"])
    if not isinstance(value.get("dialog"), list):
        raise InvalidInputError(
            f"a row must be an object with a list `dialog`, got {row.received[:80]}; leave out "
            "what is no dialogue"
        )
    return value


def _refuse(path: Path, strangers: list[SetAside]) -> NoReturn:
    raise InvalidInputError(
        "a log of dialogues must hold objects with a list `dialog`, got "
        f"{printable_path(path)!r}, of which {len(strangers):,} rows hold none; the first: "
        f"{strangers[0].reason}"
    )
