"""Training sets on disk: rows with their conversations, redacted, split, with a card.

A set is a Hugging Face dataset: `datasets.load_dataset(folder)` gives its splits `train` and
`validation`. Its folder is named after the digest of its rows.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratchet.errors import InvalidInputError, LeakError
from ratchet.improve.curation.calls import fault
from ratchet.improve.curation.card import CardFacts, card
from ratchet.improve.curation.config import CurationConfig, Demonstration
from ratchet.improve.curation.decontamination import leaking
from ratchet.improve.curation.funnel import APART, require_enough
from ratchet.improve.curation.pool import Background, Context
from ratchet.improve.curation.preferences import (
    label_answers,
    pair_answers,
    select_labelled,
    select_pairs,
)
from ratchet.improve.curation.redacting import apart, redact_rows
from ratchet.improve.curation.rows import (
    ANSWERS,
    TOOLS,
    LabelledRow,
    PreferenceRow,
    Row,
    RowKind,
    Tools,
    TrainingRow,
    kind_of,
    learnt_digest,
    question,
    row_of,
)
from ratchet.improve.curation.selection import (
    NOTHING_ELSE,
    Selected,
    Selection,
    select,
    select_answers,
)
from ratchet.improve.curation.shapes import as_turns, as_words
from ratchet.improve.curation.split import split_rows
from ratchet.outcomes.join import Outcomes
from ratchet.outcomes.quality import Quality
from ratchet.records import (
    Interaction,
    TrainingSet,
    derive_id,
    digest,
)
from ratchet.records.conversations import AS_TEXT
from ratchet.records.tool_calls import MARK, has_calls
from ratchet.safety.redaction import Redacted

if TYPE_CHECKING:
    import pandas as pd

ROWS_FILE = "train.parquet"
SAMPLE_FILE = "redaction_sample.txt"
_DEFAULT = CurationConfig()


def choose(
    kind: RowKind,
    outcomes: Outcomes,
    quality: Quality,
    protected: Collection[str],
    config: CurationConfig,
    *,
    context: Context = NOTHING_ELSE,
) -> Selection:
    """Choose rows of a kind: `select`, `select_labelled` or `select_pairs`."""
    selectors = {"sft": select, "kto": select_labelled, "dpo": select_pairs}
    return selectors[kind](outcomes, quality, protected, config, context=context)


def choose_among(kind: RowKind, background: Background) -> Selection:
    """Choose rows of a kind out of traffic that was made for that kind.

    Raises:
        InsufficientDataError: Fewer than `minimum_examples` are left.
    """
    return require_enough(choose_any(kind, background), background.config)


def choose_any(kind: RowKind, background: Background) -> Selection:
    """Choose rows of a kind as `choose_among` does, however few."""
    selectors = {"sft": select_answers, "kto": label_answers, "dpo": pair_answers}
    return selectors[kind](background)


@dataclass(frozen=True, slots=True)
class Requests:
    """What was asked for the answers of a selection.

    Attributes:
        interactions: By id.
        tools: Tools by their digest.
        demonstrations: Experts' answers, by id.
    """

    interactions: Mapping[str, Interaction]
    tools: Mapping[str, Tools] = field(default_factory=dict)
    demonstrations: Mapping[str, Demonstration] = field(default_factory=dict)

    def asked(self, row: Selected) -> dict[str, Any]:
        """Return the turns and the tools of a row.

        Raises:
            InvalidInputError: Its interaction is missing.
        """
        source = self.interactions.get(row.interaction_id)
        shown = self.demonstrations.get(row.interaction_id)
        if source is None and shown is None:
            raise InvalidInputError(
                f"every selected row needs its interaction, got none for {row.interaction_id!r}; "
                "pass what the store holds for the selection's ids"
            )
        if source is None:
            assert shown is not None
            tools, messages = shown.tools or None, shown.messages
        else:
            tools, messages = self.tools.get(source.tools or ""), source.messages
        if tools is None and not has_calls(messages):
            return {"messages": as_words(messages)}
        return {"messages": as_turns(messages), "tools": tools}


Asked = Mapping[str, Interaction] | Requests


def _requests(asked: Asked, selection: Selection) -> Requests:
    found = asked if isinstance(asked, Requests) else Requests(asked)
    return replace(found, demonstrations=selection.demonstrations)


def build_rows(
    selection: Selection, asked: Asked, config: CurationConfig, seed: int
) -> list[TrainingRow]:
    """Put an SFT selection's full conversations and targets together, in order of time."""
    requests = _requests(asked, selection)
    targets = [row.target for row in selection.rows]
    if config.shuffle_targets:
        order = np.random.default_rng(seed).permutation(len(targets))
        targets = [targets[place] for place in order]
    return [
        TrainingRow(target=target, **requests.asked(row), **_common(row))
        for row, target in zip(selection.rows, targets, strict=True)
    ]


def build_labelled(selection: Selection, asked: Asked) -> list[LabelledRow]:
    """Put a KTO selection's full conversations and labels together, in order of time."""
    requests = _requests(asked, selection)
    return [
        LabelledRow(
            answer=row.target,
            desirable=bool(row.desirable),
            **requests.asked(row),
            **_common(row),
        )
        for row in selection.rows
    ]


def build_pairs(selection: Selection, asked: Asked) -> list[PreferenceRow]:
    """Put a DPO selection's full conversations and pairs together, in order of time."""
    requests = _requests(asked, selection)
    return [
        PreferenceRow(
            chosen=row.target,
            rejected=row.rejected or "",
            chosen_id=row.chosen_id,
            **requests.asked(row),
            **_common(row),
        )
        for row in selection.rows
    ]


def build(selection: Selection, asked: Asked, config: CurationConfig, seed: int) -> Sequence[Row]:
    """Build the rows of a selection of any kind.

    Args:
        selection: What was chosen.
        asked: Its interactions by id, or these with the tools that they could call.
        config: How.
        seed: Of what is drawn.
    """
    if selection.kind == "kto":
        return build_labelled(selection, asked)
    if selection.kind == "dpo":
        return build_pairs(selection, asked)
    return build_rows(selection, asked, config, seed)


def _common(row: Selected) -> dict[str, Any]:
    return {
        "interaction_id": row.interaction_id,
        "source": row.source,
        "weight": row.weight,
        "user_id": row.user_id,
        "moment": row.moment,
    }


def of_words(rows: Sequence[Row]) -> list[Row]:
    """Leave out rows in which a call of a tool stands as text, such as in a correction."""
    return [row for row in rows if not _calls_as_text(row)]


def _calls_as_text(row: Row) -> bool:
    answers = (getattr(row, name) for name in ANSWERS[type(row)])
    return any(AS_TEXT in text for text in (*answers, *(turn.text for turn in row.messages)))


def fitting(rows: Sequence[Row], config: CurationConfig) -> list[Row]:
    """Leave out rows to learn whose calls do not fit their tools once personal data is out."""
    calling = [row for row in rows if _learns_calls(row)]
    clean = redact_rows(calling, config)[0]
    unfit = {id(row) for row, found in zip(calling, clean, strict=True) if call_fault(found)}
    return [row for row in rows if id(row) not in unfit]


def call_fault(row: Row) -> str:
    """Return why the calls of a row must not be learnt, "" where they may."""
    return fault(_learnt(row), row.tools)


def _learns_calls(row: Row) -> bool:
    return MARK in _learnt(row)


def _learnt(row: Row) -> str:
    """Return the answer that a row teaches, "" where it teaches not to give one."""
    if isinstance(row, LabelledRow):
        return row.answer if row.desirable else ""
    return row.target if isinstance(row, TrainingRow) else row.chosen


def without_leaks(
    rows: Sequence[Row], protected: Collection[str], config: CurationConfig
) -> list[Row]:
    """Leave out rows that leak an evaluation set in an earlier turn of their conversation."""
    found = leaking(rows, protected, config.decontamination)
    return [row for place, row in enumerate(rows) if place not in found]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A training set as it would be written.

    Attributes:
        train: Rows to train on, without personal data.
        validation: Rows of the newest users, none of whom is trained on.
        digest: SHA-256 of both.
        learnt: SHA-256 of what a trainer reads of both.
        redacted: What was taken out.
        changed: Rows in which something was.
        card: Its card, in Markdown.
    """

    selection: Selection
    config: CurationConfig
    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    digest: str
    learnt: str
    redacted: Redacted
    changed: int
    card: str

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows."""
        return (*self.train, *self.validation)

    def write(self, folder: Path) -> None:
        """Write it as a dataset; the folder appears whole or not at all, and one there stands."""
        stored = {"train": [row.canonical() for row in self.train]}
        if self.validation:
            stored["validation"] = [row.canonical() for row in self.validation]
        files = {"README.md": self.card}
        if self.redacted.sample:
            files[SAMPLE_FILE] = "\n".join(self.redacted.sample) + "\n"
        _write(folder, kind_of(self.rows), stored, files)


def prepare(
    rows: Sequence[Row],
    selection: Selection,
    protected: Collection[str],
    config: CurationConfig = _DEFAULT,
) -> Prepared:
    """Redact and split rows; nothing is written.

    Rows that are the same as others once personal data is out, or as what the gate tests on, are
    left out and counted as a step of the selection.

    The same rows and configuration give the same digest, whatever the order of the rows.

    Raises:
        LeakError: A prompt that the gate tests on, or what is close to one, is among the rows.
        InsufficientDataError: No row is left that differs from others without personal data.
        InvalidInputError: There are no rows, they are of several kinds, or a call of a tool stands
            in one as text or does not fit its tools.
    """
    kind = kind_of(rows)
    _refuse_calls(rows)
    _refuse_leaks(rows, protected, config)
    clean, redacted = redact_rows(rows, config)
    kept = apart(rows, clean, protected, config)
    if len(kept) < len(rows):
        rows, clean = [rows[place] for place in kept], [clean[place] for place in kept]
        found = {row.interaction_id for row in rows}
        selection = selection.keeping(found, APART)
        if not rows:
            require_enough(selection, config)
    _refuse_faults(clean)
    train, validation = split_rows(
        clean, share=config.validation_share, smallest=config.validation_from
    )
    stored = {"train": [row.canonical() for row in train]}
    if validation:
        stored["validation"] = [row.canonical() for row in validation]
    content = digest(stored)
    changed = sum(a != b for a, b in zip(rows, clean, strict=True))
    facts = CardFacts(kind, content, config, redacted.counts, changed)
    return Prepared(
        selection=selection,
        config=config,
        train=tuple(train),
        validation=tuple(validation),
        digest=content,
        learnt=learnt_digest(train, validation),
        redacted=redacted,
        changed=changed,
        card=card(train, validation, selection, facts),
    )


def write_training_set(
    rows: Sequence[Row],
    selection: Selection,
    protected: Collection[str],
    *,
    home: Path,
    cycle_id: str,
    now: datetime,
    config: CurationConfig = _DEFAULT,
) -> TrainingSet:
    """Write what `prepare` makes of rows under the home folder, and describe it."""
    prepared = prepare(rows, selection, protected, config)
    return write_prepared(prepared, home=home, cycle_id=cycle_id, now=now)


def write_prepared(
    prepared: Prepared, *, home: Path, cycle_id: str, now: datetime, origin: str = ""
) -> TrainingSet:
    """Write a set under the home folder and describe it.

    Args:
        prepared: The rows.
        home: The home folder.
        cycle_id: The cycle that it is of.
        now: The time.
        origin: Of a data set that others made.
    """
    path = Path("datasets") / prepared.digest[:16]
    prepared.write(home / path)
    selection = prepared.selection
    return TrainingSet(
        id=derive_id("training set", cycle_id, prepared.digest),
        cycle_id=cycle_id,
        created_at=now,
        digest=prepared.digest,
        path=str(path),
        size=len(prepared.train),
        funnel=selection.funnel,
        kind=kind_of(prepared.rows),
        validation=len(prepared.validation),
        config_digest=digest(prepared.config.model_dump(mode="json")),
        redactions=tuple(prepared.redacted.counts.items()),
        set_aside=selection.set_aside,
        leaks=selection.leaks,
        findings=tuple(finding.describe() for finding in selection.findings),
        learnt=prepared.learnt,
        origin=origin,
        license=prepared.config.license,
    )


def _refuse_calls(rows: Sequence[Row]) -> None:
    found = next((row for row in rows if _calls_as_text(row)), None)
    if found is not None:
        raise InvalidInputError(
            f"a training row must hold no call of a tool as text, got {AS_TEXT!r} in that of "
            f"{found.interaction_id!r}; leave it out with `of_words`"
        )


def _refuse_faults(rows: Sequence[Row]) -> None:
    found = next(((row, why) for row in rows if (why := call_fault(row))), None)
    if found is not None:
        raise InvalidInputError(
            "a call that is learnt must be one that its request's tools take, got one of "
            f"{found[0].interaction_id!r}: {found[1]}; leave it out with `fitting`"
        )


def _refuse_leaks(rows: Sequence[Row], protected: Collection[str], config: CurationConfig) -> None:
    found = leaking(rows, protected, config.decontamination)
    if found:
        place, reason = next(iter(found.items()))
        raise LeakError(
            f"no prompt of an evaluation set may be trained on, got {len(found)}, for example "
            f"{question(rows[place])[:80]!r} ({reason}); this is a defect in the selection"
        )


def _write(
    folder: Path,
    kind: RowKind,
    stored: Mapping[str, list[dict[str, Any]]],
    files: Mapping[str, str],
) -> None:
    """Write a folder that appears whole or not at all; one of this digest stands."""
    if folder.exists():
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="writing-", dir=folder.parent))
    try:
        for split, rows in stored.items():
            schema = parquet_schema(kind, with_calls=any(map(_has_calls, rows)))
            pq.write_table(pa.Table.from_pylist(rows, schema), work / f"{split}.parquet")
        for name, text in files.items():
            (work / name).write_text(text, "utf-8")
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _has_calls(stored: Mapping[str, Any]) -> bool:
    """Tell whether a stored row has tools, or turns with more than a role and words."""
    turns = (turn for value in stored.values() if isinstance(value, list) for turn in value)
    return TOOLS in stored or any(len(turn) > 2 for turn in turns)


def has_calls_in(rows: Sequence[Row]) -> bool:
    """Tell whether rows are stored with the columns of calls of tools."""
    return any(_has_calls(row.canonical()) for row in rows)


def parquet_schema(kind: RowKind, *, with_calls: bool = False) -> Any:
    """Return the columns of a kind of set as Arrow has them.

    Args:
        kind: Of set.
        with_calls: Whether a row has tools, calls or results: turns have more fields then.
    """
    import pyarrow as pa

    turn = [("role", pa.string()), ("content", pa.string())]
    if with_calls:
        function = pa.struct([("name", pa.string()), ("arguments", pa.string())])
        called = [("id", pa.string()), ("type", pa.string()), ("function", function)]
        turn += [("name", pa.string()), ("tool_call_id", pa.string())]
        turn += [("tool_calls", pa.list_(pa.struct(called)))]
    messages = pa.list_(pa.struct(turn))
    names: dict[RowKind, list[tuple[str, Any]]] = {
        "sft": [("completion", messages)],
        "kto": [("completion", messages), ("label", pa.bool_())],
        "dpo": [("chosen_id", pa.string()), ("chosen", messages), ("rejected", messages)],
    }
    common = [("interaction_id", pa.string()), ("source", pa.string()), ("weight", pa.float64())]
    tools = [(TOOLS, pa.string())] if with_calls else []
    return pa.schema([*common, ("prompt", messages), *names[kind], *tools])


def read_any_rows(folder: Path, split: str = "train") -> list[Row]:
    """Read a split of a set back, of any kind: rows without user and moment, which it keeps not.

    Raises:
        InvalidInputError: The set is not on disk any more.
    """
    import pyarrow.parquet as pq

    if not (folder / ROWS_FILE).exists():
        raise InvalidInputError(
            f"a training set must be on disk, got none in {folder.name!r}; it may have been "
            "deleted with a user's data: curate a new one"
        )
    path = folder / f"{split}.parquet"
    if not path.exists():
        return []
    table = pq.read_table(path)
    names = set(table.column_names)
    kind: RowKind = "dpo" if "chosen" in names else "kto" if "label" in names else "sft"
    return [row_of(kind, row) for row in table.to_pylist()]


def learnt_of(home: Path, stored: TrainingSet) -> str:
    """Return the digest of what a trainer reads of a set; "" where nobody can tell any more."""
    folder = home / stored.path
    if stored.learnt or not (folder / ROWS_FILE).exists():
        return stored.learnt
    return learnt_digest(read_any_rows(folder), read_any_rows(folder, "validation"))


def trained_interactions(home: Path, sets: Sequence[TrainingSet]) -> frozenset[str]:
    """Return the interactions in the splits of all these sets, of those that are still on disk."""
    import pyarrow.parquet as pq

    found: set[str] = set()
    for folder in {home / item.path for item in sets}:
        for path in sorted(folder.glob("*.parquet")):
            column = pq.read_table(path, columns=["interaction_id"])["interaction_id"]
            found.update(column.to_pylist())
    return frozenset(found)


def frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as a flat table of texts, for people and for MLflow."""
    import pandas as pd

    def flat(row: Row) -> dict[str, Any]:
        answers = {name: getattr(row, name) for name in ANSWERS[type(row)]}
        label = {"label": row.desirable} if isinstance(row, LabelledRow) else {}
        return {"prompt": question(row)} | answers | label | {"source": row.source}

    return pd.DataFrame([flat(row) for row in rows])
