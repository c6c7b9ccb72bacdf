"""A training set for other tools: TRL, OpenAI, axolotl, Parquet, a Hugging Face folder.

| kind of set | TRL | OpenAI | axolotl |
|---|---|---|---|
| `sft` | `prompt`, `completion` | `messages` | `messages` with `train` |
| `kto` | `prompt`, `completion`, `label` | there is no such format | the same |
| `dpo` | `prompt`, `chosen`, `rejected` | `input`, two outputs | `messages`, `chosen`, `rejected` |

A row whose request had tools has them as `tools`, in the `input` of OpenAI's pairs; answers that
call tools have `tool_calls`.

What is written was allowed when the set was made, and is asked again now: a row stays out whose
user has refused since, with whatever interaction, or was forgotten, or whose time to be kept is
over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ratchet.errors import InvalidInputError
from ratchet.export.grammar import Format, Request
from ratchet.export.parts import Part, Tally, batches_of
from ratchet.files.text import counted, printable
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.dataset import (
    ROWS_FILE,
    has_calls_in,
    parquet_schema,
    read_any_rows,
)
from ratchet.improve.curation.redacting import redact_rows
from ratchet.improve.curation.rows import PreferenceRow, Row, for_trainer, row_of
from ratchet.records import Candidate, Interaction, Message, TrainingSet, digest
from ratchet.safety.redaction import RedactionConfig
from ratchet.store import EventStore
from ratchet.store.history import History
from ratchet.store.history.refusals import refusing_users
from ratchet.store.permissions import CONSENT, RETAIN, Permission

SPLITS = ("train", "validation")
REFUSED = "its user refused training, was forgotten, or its time to be kept is over"
UNKNOWN = "its interaction is stored no more, so that nobody can tell whether its user agrees"
_WITHOUT_KTO: Mapping[Format, str] = {"openai": "OpenAI", "axolotl": "axolotl"}
FEWEST_FOR_OPENAI = 10
"""OpenAI refuses a file of fewer examples."""

Fetch = Callable[[str], Path | None]
"""Returns a local folder with the training set that an MLflow run holds."""


@dataclass(frozen=True, slots=True)
class StoredSet:
    """A training set that was found, with its rows by split and its card."""

    record: TrainingSet
    rows: dict[str, list[Row]]
    card: str


def find_set(store: EventStore, home: Path, name: str | None, fetch: Fetch) -> StoredSet:
    """Find a training set: on this disk, else in MLflow, where whoever trained on it put it.

    Args:
        store: Knows which sets there are.
        home: The home folder.
        name: The start of its id or digest; the latest set without it.
        fetch: Fetches the set of an MLflow run.

    Raises:
        InvalidInputError: There is none, or several begin so, or its rows cannot be reached.
    """
    record = _named(store.records(TrainingSet), name)
    folder = home / record.path
    if not (folder / ROWS_FILE).exists():
        runs = [one.run_id for one in store.records(Candidate) if one.training_set_id == record.id]
        fetched = (fetch(run) for run in reversed(runs))
        folder = next((one for one in fetched if one and (one / ROWS_FILE).exists()), folder)
    if not (folder / ROWS_FILE).exists():
        raise InvalidInputError(
            f"a training set must be on this disk or in MLflow, got set {record.digest[:16]} in "
            "neither; it was deleted with a user's data, or lies on the machine that made it and "
            "was not trained on yet: curate a new one, or export it there"
        )
    rows = {split: read_any_rows(folder, split) for split in SPLITS}
    content = {split: [row.canonical() for row in part] for split, part in rows.items() if part}
    if digest(content) != record.digest:
        raise InvalidInputError(
            f"a training set's rows must have its digest, got other rows in set "
            f"{record.digest[:16]}; they were changed since: restore the folder, or curate anew"
        )
    card = folder / "README.md"
    return StoredSet(record, rows, card.read_text("utf-8") if card.exists() else "")


def parts_of(
    found: StoredSet,
    store: EventStore,
    history: History,
    request: Request,
    tally: Tally,
    *,
    now: datetime,
) -> list[Part]:
    """Return a training set's splits in the format of a request, without what must not leave.

    Raises:
        InvalidInputError: The format has no such rows, or none may leave.
    """
    if request.format in _WITHOUT_KTO and found.record.kind == "kto":
        raise InvalidInputError(
            f"{_WITHOUT_KTO[request.format]} takes answers to learn (sft) and pairs (dpo) of "
            "conversations, got a set of answers that users liked or not (kto); pass --format trl, "
            "or another --set"
        )
    names = SPLITS if request.format == "hf" else (request.split or "train",)
    allowed = _allowed(store, history, [row for name in names for row in found.rows[name]], now)
    parts, written = [], 0
    for name in names:
        rows = [row for row in found.rows[name] if _may_leave(row, allowed, tally)]
        if request.redacts and rows:
            config = CurationConfig(redaction=RedactionConfig(sample=0))
            rows, redacted = redact_rows(rows, config)
            tally.redacted.update(redacted.counts)
        if rows:
            parts.append(_part(found, name, rows, request.format))
            written += len(rows)
    if not parts:
        raise InvalidInputError(
            f"an export must hold a row, got none of {', '.join(names)} in set "
            f"{found.record.digest[:16]}"
            + "".join(f"; {count} left out: {why}" for why, count in tally.left_out.items())
        )
    _note(found, names, request, written, tally)
    return parts


def lines_for(rows: Sequence[Row], format_name: Format) -> list[dict[str, Any]]:
    """Return rows of one kind as the lines of a format."""
    if format_name == "trl":
        return for_trainer(rows)
    if format_name == "openai":
        return [_openai(row) for row in rows]
    if format_name == "axolotl":
        return [_axolotl(row) for row in rows]
    return [row.canonical() for row in rows]


def _axolotl(row: Row) -> dict[str, Any]:
    """Return a row as axolotl's `chat_template` takes it: `train` says which turns are learnt.

    An earlier answer is not learnt: nobody said that it was good.
    """
    stored = row.canonical()
    tools = {"tools": list(row.tools)} if row.tools else {}
    said = [message.canonical() for message in row.messages]
    if isinstance(row, PreferenceRow):
        pair = {name: stored[name][0] for name in ("chosen", "rejected")}
        return {"messages": said} | pair | tools
    told = [*({**message, "train": False} for message in said)]
    return {"messages": [*told, {**stored["completion"][0], "train": True}]} | tools


def _openai(row: Row) -> dict[str, Any]:
    """Return a row as OpenAI's fine-tuning takes it; of a conversation the last answer is learnt.

    An earlier answer gets weight 0: nobody said that it was good.
    """
    stored = row.canonical()
    tools = {"tools": list(row.tools)} if row.tools else {}
    if isinstance(row, PreferenceRow):
        return {
            "input": {"messages": [_said(message) for message in row.messages]} | tools,
            "preferred_output": [_learnt(stored["chosen"])],
            "non_preferred_output": [_learnt(stored["rejected"])],
        }
    said = [_said(one, weighed=True) for one in row.messages]
    return {"messages": [*said, _learnt(stored["completion"])]} | tools


def _learnt(answer: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return an answer as OpenAI takes it, which asks for an id of each call."""
    (turn,) = answer
    calls = [{"id": f"call_{n}", **call} for n, call in enumerate(turn.get("tool_calls", ()))]
    return turn | ({"tool_calls": calls} if calls else {})


def _said(message: Message, *, weighed: bool = False) -> dict[str, Any]:
    more = {"weight": 0} if weighed and message.role == "assistant" else {}
    return message.canonical() | more


def _named(sets: Sequence[TrainingSet], name: str | None) -> TrainingSet:
    found = [one for one in sets if name is None or one.id == name or one.digest.startswith(name)]
    found = found or [one for one in sets if name is not None and one.id.startswith(name)]
    if name is not None and len({one.digest for one in found}) > 1:
        raise InvalidInputError(
            f"--set must name one training set, got {printable(name, 40)!r}, with which "
            f"{len(found)} begin; give more characters"
        )
    if not found:
        known = ", ".join(one.digest[:16] for one in sets[-5:]) or "none"
        raise InvalidInputError(
            f"an export needs a training set, got {'none' if name is None else repr(name)}; the "
            f"latest are: {known} (the stage improve makes one)"
        )
    return found[-1]


def _allowed(
    store: EventStore, history: History, rows: Sequence[Row], now: datetime
) -> dict[str, bool]:
    """Return whether each interaction may be trained on, for those that are still stored."""
    ids = list(dict.fromkeys(key for row in rows for key in _interactions(row)))
    known = store.stored_interactions(ids)
    gone = [key for key in ids if key not in known]
    if gone and history.cursor() is not None:
        known |= history.fetch_interactions(gone)
    users = {interaction.user_id for interaction in known.values()}
    refusing = refusing_users(store, history, users)
    return {
        key: interaction.user_id not in refusing and not _refuses(interaction, now)
        for key, interaction in known.items()
    }


def _refuses(interaction: Interaction, now: datetime) -> bool:
    said = interaction.metadata
    permission = Permission(interaction.id, said.get(CONSENT), said.get(RETAIN))
    return permission.refuses(now, only_if_given=False)


def _interactions(row: Row) -> Iterator[str]:
    """Yield the ids of the interactions that a row was made of.

    An expert's answer has none, nor has a row of a data set that others made.
    """
    if row.source not in ("demonstration", "dataset"):
        yield row.interaction_id
        if isinstance(row, PreferenceRow):
            yield row.chosen_id


def _may_leave(row: Row, allowed: dict[str, bool], tally: Tally) -> bool:
    told = [allowed.get(key) for key in _interactions(row)]
    if all(told):
        return True
    tally.left_out[REFUSED if False in told else UNKNOWN] += 1
    return False


def _part(found: StoredSet, name: str, rows: list[Row], format_name: Format) -> Part:
    kind = found.record.kind
    schema = parquet_schema(kind, with_calls=has_calls_in(rows))

    def line(stored: dict[str, Any]) -> dict[str, Any]:
        (written,) = lines_for([row_of(kind, stored)], format_name)
        return written

    batches = batches_of((row.canonical() for row in rows), schema)
    title = f"Training set {found.record.digest[:16]}"
    return Part(name, schema, batches, line, title, found.card)


def _note(
    found: StoredSet, names: Sequence[str], request: Request, written: int, tally: Tally
) -> None:
    for name in SPLITS:
        count = len(found.rows[name])
        if count and name not in names:
            tally.notes.append(
                f"not in it: {counted(count, 'row')} of {name}; --split {name} does them"
            )
    if request.format == "openai" and written < FEWEST_FOR_OPENAI:
        tally.notes.append(
            f"OpenAI takes {counted(FEWEST_FOR_OPENAI, 'example')} or more, these are {written}"
        )
    if found.record.redactions:
        told = ", ".join(f"{count} × {kind}" for kind, count in found.record.redactions)
        tally.notes.append(f"personal data was taken out when the set was made: {told}")
