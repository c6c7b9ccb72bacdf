"""Training sets that others made, in the formats of TRL: rows to train on without any traffic.

    given = read_given("rows.jsonl", cache)          # a file, a folder, or an id of the Hub
    given.kind, given.rows["train"], given.set_aside

| kind | columns | answers |
|---|---|---|
| `sft` | `messages`; or `prompt`, `completion` | the last turn; the completion |
| `kto` | `prompt`, `completion`, `label` | the completion, wanted or not |
| `dpo` | `prompt`, `chosen`, `rejected`; or the latter two, which begin alike | both |

Each is text (one turn of the user and the answer) or a list of turns, with `tools` or without.
`conversations` of `from` and `value` are read as `messages`. A row that cannot be used is set aside
with its reason, and the others go on.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ratchet.errors import InvalidInputError
from ratchet.files.hub_ids import is_hub_id
from ratchet.files.rows import SetAsideRow, parse_json, read_rows
from ratchet.files.text import counted, first_line, printable, printable_path
from ratchet.improve.curation.config import CurationConfig
from ratchet.improve.curation.dataset import Prepared, fitting, of_words, prepare, without_leaks
from ratchet.improve.curation.funnel import FITTING, UNSEEN, WITHOUT_CALLS
from ratchet.improve.curation.rows import (
    LabelledRow,
    PreferenceRow,
    Row,
    RowKind,
    TrainingRow,
    question,
)
from ratchet.improve.curation.selection import Selected, Selection
from ratchet.improve.curation.shapes import CALLS, WHY_NOT, WORDS, as_turns, as_words, shape_of
from ratchet.models.hub import fetch, license_in
from ratchet.records import Example, Message, digest
from ratchet.records.tool_calls import written

ROWS, USABLE, TO_TRAIN = "rows of the data set", "usable", "to train on, not held out"
FEWEST_FOR_GATE = 100
"""The loop's own policy decides on no fewer examples."""
Fields = Mapping[str, Any]
_NAMES = ("prompt", "completion", "messages", "conversations", "chosen", "rejected", "tools")
_COLUMNS = (*_NAMES, "label")
_SPLITS = {"train": "train", "validation": "validation", "valid": "validation", "test": "test"}
_FORMATS = (
    "messages; prompt and completion; prompt, completion and label; or prompt, chosen and rejected"
)


@dataclass(slots=True)
class Given:
    """What was read of a data set.

    Attributes:
        origin: Where it is from, for cards: a file's name, or the id of the Hub with its revision.
        license: What its card says; "" where it says nothing.
        kind: What can be trained with it.
        rows: By split, each once; a data set without splits is `train`.
        read: How many rows there were in all.
        set_aside: Those that cannot be used.
    """

    origin: str
    license: str = ""
    kind: RowKind = "sft"
    rows: dict[str, list[Row]] = field(default_factory=dict)
    read: int = 0
    set_aside: list[SetAsideRow] = field(default_factory=list)

    @property
    def reasons(self) -> tuple[tuple[str, int], ...]:
        """Why rows were set aside, with how often, the most frequent first."""
        return tuple(Counter(row.reason for row in self.set_aside).most_common())


def read_given(source: str, cache: Path) -> Given:
    """Read a data set: a file, a folder that `datasets` reads, or an id of the Hub.

    Args:
        source: A path, or `owner/name` or `owner/name@revision`.
        cache: Where the revision of an id is noted.

    Raises:
        InvalidInputError: Nothing of it can be trained with.
        ModelError: The Hub has no such data set, or does not give it.
    """
    if is_hub_id(source):
        found = fetch("dataset", source, cache)
        given = Given(found.in_words)
        _read_folder(given, found.folder, cache)
    else:
        path = Path(source).expanduser()
        given = Given(printable_path(Path(path.name)))
        if path.is_dir():
            _read_folder(given, path, cache)
        else:
            _read_file(given, path)
    if not given.rows.get("train"):
        first = given.set_aside[0] if given.set_aside else None
        why = f"; {first.position}: {first.reason}" if first else ""
        raise InvalidInputError(
            f"a data set must have a row to train on, got {counted(given.read, 'row')} in "
            f"{given.origin} of which none can be used{why}"
        )
    return given


def _read_file(given: Given, path: Path) -> None:
    with read_rows(path, names=_COLUMNS) as rows:
        read: _Reader | None = _Reader(given, rows.columns) if rows.columns else None
        for row in rows:
            given.read += 1
            try:
                fields = row.given()
                read = read or _Reader(given, tuple(fields))
                read.add("train", fields)
            except InvalidInputError as error:
                given.set_aside.append(row.set_aside(str(error)))


def _read_folder(given: Given, folder: Path, cache: Path) -> None:
    """Read what `datasets` finds in a folder: its own, or files by split."""
    given.license = license_in(folder)
    for split, rows, columns in _splits(folder, cache):
        read = _Reader(given, columns)
        for number, fields in enumerate(rows, start=1):
            given.read += 1
            try:
                read.add(split, fields)
            except InvalidInputError as error:
                text = printable(json.dumps(fields, ensure_ascii=False, default=str), 200)
                place = f"{split}, row {number}"
                given.set_aside.append(SetAsideRow(number, place, str(error), text))


def _splits(folder: Path, cache: Path) -> Iterator[tuple[str, Iterable[Fields], tuple[str, ...]]]:
    from datasets import Dataset, DatasetDict, load_dataset, load_from_disk
    from datasets.exceptions import DatasetsError
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    saved = (folder / "dataset_dict.json").exists() or (folder / "state.json").exists()
    try:
        found = (
            load_from_disk(str(folder))
            if saved
            else load_dataset(str(folder), cache_dir=str(cache / "datasets"))
        )
    except (DatasetsError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise InvalidInputError(
            f"a folder must be a data set that the library datasets reads, got "
            f"{printable_path(folder)!r}: {first_line(cause)}; name a file in it, or "
            "correct it"
        ) from error
    parts = DatasetDict({"train": found}) if isinstance(found, Dataset) else found
    for name, rows in parts.items():
        if name in _SPLITS:
            yield _SPLITS[name], rows, tuple(rows.column_names)


def prepared_of(given: Given, protected: Collection[str], config: CurationConfig) -> Prepared:
    """Return the rows to train on as a training set.

    Rows of `validation` that the gate does not ask are among them: which rows validate the training
    is drawn here. They are redacted, held apart from evaluation sets and split as rows of users
    are, and none is left out for its quality or number.

    Args:
        given: What was read.
        protected: Prompts that the gate tests on.
        config: How.

    Raises:
        InvalidInputError: No row is left.
    """
    config = config.model_copy(
        update={"origin": given.origin, "license": given.license or config.license}
    )
    rows: Sequence[Row] = [*given.rows["train"], *given.rows.get("validation", ())]
    selection = Selection(
        rows=tuple(_selected(row, place) for place, row in enumerate(rows)),
        funnel=(
            (ROWS, given.read),
            (USABLE, given.read - len(given.set_aside)),
            (TO_TRAIN, len(rows)),
        ),
        kind=given.kind,
        set_aside=given.reasons,
        liked=(sum(map(_wanted, rows)),) if given.kind == "kto" else (),
    )
    for step, leave_out in (
        (UNSEEN, lambda rows: without_leaks(rows, protected, config)),
        (WITHOUT_CALLS, of_words),
        (FITTING, lambda rows: fitting(rows, config)),
    ):
        rows = leave_out(rows)
        selection = selection.keeping({row.interaction_id for row in rows}, step)
    if not rows:
        told = "; ".join(f"{step}: {count}" for step, count in selection.funnel)
        raise InvalidInputError(
            f"a data set must leave a row to train on, got none of {given.origin} ({told}); "
            "take other rows, or other examples for the gate"
        )
    return prepare(rows, selection, protected, config)


class _Reader:
    """Makes rows of one data set, all of one kind."""

    def __init__(self, given: Given, columns: Sequence[str]) -> None:
        self._given, self._make = given, _MAKERS[kind_of_columns(columns)]
        given.kind = kind_of_columns(columns)
        self._seen = {row.interaction_id for rows in given.rows.values() for row in rows}

    def add(self, split: str, fields: Fields) -> None:
        """Keep a row; one that is there already is left out.

        Raises:
            InvalidInputError: It cannot be used.
        """
        try:
            row = self._make(_in_turns(fields))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise InvalidInputError(f"a turn: {where}: {first['msg']}") from error
        if row.interaction_id in self._seen:
            raise InvalidInputError("the same row is there before; each is trained on once")
        self._seen.add(row.interaction_id)
        self._given.rows.setdefault(split, []).append(row)


def kind_of_columns(columns: Sequence[str]) -> RowKind:
    """Return what rows with these columns can be trained with.

    Raises:
        InvalidInputError: They are in no format of SFT, KTO or DPO.
    """
    names = set(columns)
    if {"chosen", "rejected"} <= names:
        return "dpo"
    if {"prompt", "completion"} <= names:
        return "kto" if "label" in names else "sft"
    if names & {"messages", "conversations"}:
        return "sft"
    text = "; text alone has nothing that is asked" if "text" in names else ""
    raise InvalidInputError(
        f"a data set must have the columns {_FORMATS}; got "
        f"{printable(', '.join(columns), 80) or 'none'}{text}; rename them"
    )


def _in_turns(fields: Fields) -> dict[str, Any]:
    """Return a row's columns, with JSON in a table's cells read, and ShareGPT's turns as TRL's."""
    found = {name: value for name, value in fields.items() if value is not None}
    for name in _NAMES:
        text = found.get(name)
        if isinstance(text, str) and text.lstrip().startswith("[{"):
            try:
                found[name] = parse_json(text)
            except InvalidInputError:
                continue  # a text that begins so
    if "conversations" in found:
        from trl.data_utils import maybe_convert_to_chatml

        found = dict(maybe_convert_to_chatml(found))
    return found


def _sft(fields: Fields) -> TrainingRow:
    prompt = fields["prompt"] if "completion" in fields else ()
    turns, (target,) = _asked_and_said(prompt, fields.get("completion", fields.get("messages")))
    return TrainingRow(target=target, **_common(fields, turns, target))


def _kto(fields: Fields) -> LabelledRow:
    label = fields.get("label")
    if label not in (True, False, "true", "false", "True", "False"):
        raise InvalidInputError(f"label must be true or false, got {printable(str(label), 40)!r}")
    turns, (answer,) = _asked_and_said(fields.get("prompt"), fields.get("completion"))
    wanted = label in (True, "true", "True")
    return LabelledRow(
        answer=answer, desirable=wanted, **_common(fields, turns, answer, str(wanted))
    )


def _dpo(fields: Fields) -> PreferenceRow:
    from trl.data_utils import maybe_extract_prompt

    for name in ("chosen", "rejected"):
        if not fields.get(name):
            raise InvalidInputError(f"a row must have an answer as {name}, got nothing")
    pair = maybe_extract_prompt(dict(fields))
    turns, said = _asked_and_said(pair.get("prompt"), pair["chosen"], pair["rejected"])
    chosen, rejected = said
    if chosen == rejected:
        raise InvalidInputError("chosen and rejected must differ, got the same answer twice")
    common = _common(fields, turns, chosen, rejected)
    key = common["interaction_id"]
    return PreferenceRow(chosen_id=key, chosen=chosen, rejected=rejected, **common)


_MAKERS: dict[RowKind, Callable[[Fields], Row]] = {"sft": _sft, "kto": _kto, "dpo": _dpo}


def _asked_and_said(prompt: Any, *answers: Any) -> tuple[tuple[Message, ...], list[str]]:
    """Return the turns before the answer, and each answer as text.

    Of an answer of several turns the last one is learnt; those before it are the same for all.
    """
    asked = _turns(prompt, "user")
    before: list[tuple[Message, ...]] = []
    said: list[str] = []
    for answer in answers:
        *earlier, last = _turns(answer, "assistant") or (None,)
        if last is None or last.role != "assistant":
            raise InvalidInputError(
                "a conversation must end with a turn of the assistant, got "
                f"{'nothing' if last is None else f'one of {last.role}'}"
            )
        whole = (*asked, *(turn for turn in earlier if turn is not None))
        shape = shape_of(whole, last)
        if shape not in (WORDS, CALLS):
            raise InvalidInputError(WHY_NOT[shape])
        text = written(last) if shape == CALLS else last.text or last.refusal or ""
        if not text.strip():
            raise InvalidInputError("an answer must have words or calls, got a blank one")
        before.append(as_turns(whole) if shape == CALLS else as_words(whole))
        said.append(text)
    if len(set(before)) > 1:
        raise InvalidInputError(
            "chosen and rejected must answer the same turns, got turns that differ before the last"
        )
    if not any(turn.role in ("user", "tool") for turn in before[0]):
        raise InvalidInputError("a row must hold what is asked, got no turn of a user")
    return before[0], said


def _turns(value: Any, role: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        return (Message.model_validate({"role": role, "content": value}),) if value.strip() else ()
    if value is None:
        return ()
    if not isinstance(value, Sequence):
        raise InvalidInputError(
            f"turns must be a text or a list, got {printable(str(value), 40)!r}"
        )
    return tuple(Message.model_validate(_as_sent(turn)) for turn in value)


def _as_sent(turn: Any) -> Any:
    """Return a turn as OpenAI's API has it: chat templates take arguments of calls as objects."""
    if not isinstance(turn, Mapping) or not turn.get("tool_calls"):
        return turn
    calls = []
    for call in turn["tool_calls"]:
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping) and isinstance(function.get("arguments"), Mapping):
            given = {
                key: value for key, value in function["arguments"].items() if value is not None
            }
            text = json.dumps(given, ensure_ascii=False)
            call = {**call, "function": {**function, "arguments": text}}
        calls.append(call)
    return {**turn, "tool_calls": calls}


def _common(fields: Fields, turns: tuple[Message, ...], *said: str) -> dict[str, Any]:
    tools = fields.get("tools") or None
    if isinstance(tools, str):
        tools = parse_json(tools)
    if tools is not None and not (
        isinstance(tools, Sequence) and all(isinstance(tool, Mapping) for tool in tools)
    ):
        raise InvalidInputError("tools must be a list of definitions, got something else")
    content = [[turn.canonical() for turn in turns], tools, said]
    return {
        "interaction_id": f"row-{digest(content)[:32]}",
        "messages": turns,
        "source": "dataset",
        "tools": None if not tools else tuple(dict(tool) for tool in tools),
    }


def _wanted(row: Row) -> bool:
    return isinstance(row, LabelledRow) and row.desirable


def answer_of(row: Row) -> str | None:
    """Return the right answer of a row; None of one whose answer nobody wanted."""
    if isinstance(row, LabelledRow):
        return row.answer if row.desirable else None
    return row.target if isinstance(row, TrainingRow) else row.chosen


def _selected(row: Row, place: int) -> Selected:
    return Selected(
        interaction_id=row.interaction_id,
        prompt=question(row),
        target=answer_of(row) or "",
        source=row.source,
        position=place,
        desirable=_wanted(row) if isinstance(row, LabelledRow) else None,
    )


def hold_out(given: Given, share: float, most: int) -> tuple[Example, ...]:
    """Return what the gate is to ask of a data set, and leave its prompts out of the training rows.

    That is the split `test`, else `validation`; a data set without either gives up a share of its
    prompts, 100 at least where that is not over half, drawn by their digests: always the same. A
    row whose answer nobody wanted is no example.

    Args:
        given: What was read; rows with prompts that are held out are taken out of it.
        share: Share of the training rows' prompts, where there is no other split.
        most: So many examples at most.

    Raises:
        InvalidInputError: No example or no training row would be left.
    """
    split = next((name for name in ("test", "validation") if given.rows.get(name)), "train")
    by_prompt: dict[str, Row] = {}
    for row in given.rows[split]:
        if answer_of(row) is not None:
            by_prompt.setdefault(_prompt_digest(row), row)
    fewest = min(FEWEST_FOR_GATE, len(by_prompt) // 2)
    drawn = max(round(share * len(by_prompt)), fewest, 1)
    wanted = len(by_prompt) if split != "train" else drawn
    held = dict(sorted(by_prompt.items())[: min(wanted, most)])
    for name, rows in given.rows.items():
        given.rows[name] = [row for row in rows if _prompt_digest(row) not in held]
    if not held or not given.rows["train"]:
        raise InvalidInputError(
            f"a data set must have rows to train on and others for the gate, got "
            f"{counted(len(by_prompt), 'prompt')} in {given.origin}; name the gate's questions by "
            "--examples, or add rows"
        )
    return tuple(_example(row) for row in held.values())


def _prompt_digest(row: Row) -> str:
    return digest([turn.canonical() for turn in row.messages])


def _example(row: Row) -> Example:
    return Example(
        id=row.interaction_id, messages=row.messages, target=answer_of(row), tools=row.tools
    )
