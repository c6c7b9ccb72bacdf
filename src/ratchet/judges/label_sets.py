"""Label sets: what people and a judge say of the same items, from CSV, JSON Lines, JSON or Parquet.

One item a row, with `item_id`, `human` and `judge`; where the judge saw a pair in both orders
`judge_swapped` (the winner by identity, not by place); labels of further people in `human_2`,
`human_3`, ...; `length_first`, `length_second`, `family_first`, `family_second` to measure biases;
`shown_first` says which answer of a pair the judge saw as A where it saw one order alone;
`judge_reason` where there is no verdict. `judge_version`, `dimension` and `run` tell runs apart.

Or in JSON one run a row, with lists in place of values; then every other field is part of its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ratchet.errors import InvalidInputError, LeakError
from ratchet.files.rows import Row, SetAsideRow, needed_fields, no_usable_row, read_rows
from ratchet.files.text import printable
from ratchet.records import HumanLabel, digest
from ratchet.records.base import no_surrogates

TIE = "tie"
REQUIRED = ("human", "judge")
RUN_FIELDS = ("judge_version", "dimension", "run")
OPTIONAL = (
    "item_id", "judge_swapped", "judge_reason", "length_first", "length_second", "family_first",
    "family_second", "shown_first", *RUN_FIELDS,
)  # fmt: skip
_FIRST, _SECOND = "1", "2"
_WINNERS: Mapping[str, str] = {
    **dict.fromkeys(("1", "a", "first"), _FIRST),
    **dict.fromkeys(("2", "b", "second"), _SECOND),
    **dict.fromkeys(
        ("tie", "tied", "draw", "equal", "same", "both", "neither", "both good", "both bad",
         "bothgood", "bothbad", "tie both good", "tie both bad", "tie bothbad"),
        TIE,
    ),
}  # fmt: skip
_ANSWER = re.compile(r"^(?:the )?(?:model|answer|response|assistant|output|option|completion) ")
MORE_PEOPLE = re.compile(r"human_([2-9]|[1-9]\d+)")
SHOWN = 60
Place = Literal["first", "second", "both"]
LONGEST = 1e12  # characters; above it a length is a mistake, and floats overflow


def pair_winner(label: str) -> str | None:
    """Return whom a person's label of a pair names: `1`, `2` or `tie`; None where it names none.

    Example:
        >>> [pair_winner(label) for label in ("model_a", "Answer B", "tie (bothbad)", "unsure")]
        ['1', '2', 'tie', None]
    """
    words = " ".join(re.sub(r"[\W_]+", " ", label.casefold()).split())
    return _WINNERS.get(_ANSWER.sub("", words))


@dataclass(frozen=True, slots=True)
class LabelledVerdict:
    """What people and the judge say of one item.

    Attributes:
        human: The label that the judge is held against.
        judge: Its verdict; None when it is unscored.
        swapped: Of a pair, the winner with the answers in the other order, by identity.
        both_orders: Whether the other order was asked for; then a missing one is unscored.
        others: Labels of further people, None where one gave none.
        adjudicated: Whether `human` is the word of somebody who decided between people who
            disagreed, having seen their labels: then it is none of those that people agree by.
        reason: Why there is no verdict.
        lengths: Characters of the two answers of a pair.
        families: Model families of the two answers of a pair.
        place: Where the judge was shown the first answer of a pair: first, second, or in both
            places; None where that is unknown, or of a single answer.
    """

    item_id: str
    human: str
    judge: str | None
    swapped: str | None = None
    both_orders: bool = False
    others: tuple[str | None, ...] = ()
    reason: str | None = None
    lengths: tuple[float, float] | None = None
    families: tuple[str, str] | None = None
    place: Place | None = None
    adjudicated: bool = False

    @property
    def shown(self) -> Place | None:
        """Where the judge was shown the first answer, both orders counted."""
        return "both" if self.both_orders else self.place

    @property
    def verdict(self) -> str | None:
        """The verdict that counts: of two orders that disagree, a tie."""
        if not self.both_orders:
            return self.judge
        if self.judge is None or self.swapped is None:
            return None
        return self.judge if self.judge == self.swapped else TIE


@dataclass(frozen=True, slots=True)
class LabelRun:
    """The rows of one judge, one dimension."""

    name: str
    rows: tuple[LabelledVerdict, ...]


@dataclass(frozen=True, slots=True)
class LabelFile:
    """What a file holds.

    Attributes:
        set_aside: The rows that broke a rule.
        unused: Fields that are there and have no meaning here.
    """

    runs: tuple[LabelRun, ...]
    set_aside: tuple[SetAsideRow, ...]
    unused: tuple[str, ...]


def read_label_file(path: Path, columns: Mapping[str, str] | None = None) -> LabelFile:
    """Read labelled verdicts; a bad row is set aside with its reason, the others go on.

    Args:
        path: CSV, JSON Lines, JSON or Parquet (see `ratchet.files.rows`).
        columns: The file's name of a field, where it is not the one above, e.g.
            `{"human": "label"}`.

    Raises:
        InvalidInputError: The file cannot be read, a column has an unknown meaning, or no row
            holds a labelled item.
    """
    names = dict(columns or {})
    unknown = [name for name in names if name not in (*REQUIRED, *OPTIONAL) and not _more(name)]
    if unknown:
        raise InvalidInputError(
            f"columns may be given for {', '.join((*REQUIRED, *OPTIONAL))} and human_2, got "
            f"{', '.join(unknown)}; write e.g. human=label"
        )
    by_run: dict[str, dict[str, LabelledVerdict]] = {}
    aside: list[SetAsideRow] = []
    unused: set[str] = set()
    needs = [(names.get(name, name),) for name in REQUIRED]
    known = [names.get(name, name) for name in (*OPTIONAL, *filter(_more, names))]
    with read_rows(path, needs=needs, names=known) as rows:
        for row in rows:
            try:
                run, labelled, rest = _read_row(row, names)
            except ValueError as error:
                aside.append(row.set_aside(str(error)))
                continue
            unused |= rest
            group = by_run.setdefault(run, {})
            for verdict in labelled:
                if verdict.item_id in group:
                    item = printable(verdict.item_id, SHOWN)
                    aside.append(row.set_aside(f"item {item!r} is there twice in a run; keep one"))
                else:
                    group[verdict.item_id] = verdict
    runs = tuple(LabelRun(name, tuple(rows.values())) for name, rows in by_run.items() if rows)
    if not runs:
        raise no_usable_row(path, "labelled items, with human and judge", aside, rows.read)
    return LabelFile(runs, tuple(aside), tuple(sorted(unused)))


def split_labels(
    labels: Sequence[HumanLabel], *, few_shot_share: float = 0.2
) -> tuple[tuple[HumanLabel, ...], tuple[HumanLabel, ...]]:
    """Split labels by item into those for few-shot examples and those for validation.

    By a digest of the item's id, so that an item stays on its side however many labels come.

    Args:
        labels: All labels.
        few_shot_share: Share of items for examples, in [0, 1).
    """
    if not 0.0 <= few_shot_share < 1.0:
        raise InvalidInputError(f"few_shot_share must be in [0, 1), got {few_shot_share}")

    def for_examples(label: HumanLabel) -> bool:
        return int(digest(["few-shot", label.item_id])[:12], 16) / 16**12 < few_shot_share

    examples = tuple(label for label in labels if for_examples(label))
    return examples, tuple(label for label in labels if not for_examples(label))


def refuse_leaks(example_ids: Sequence[str], validation_ids: Sequence[str]) -> None:
    """Refuse few-shot examples that are in the validation set.

    Raises:
        LeakError: An item is on both sides.
    """
    both = sorted(set(example_ids) & set(validation_ids))
    if both:
        raise LeakError(
            f"an example shown to a judge may not be in its validation set, got {len(both)} that "
            f"are, such as {both[0]!r}; take other examples or leave these out of the validation"
        )


def _read_row(row: Row, names: Mapping[str, str]) -> tuple[str, list[LabelledVerdict], set[str]]:
    """Return the run's name, its rows, and fields without a meaning."""
    content = dict(row.read())
    needed_fields(content, [(names.get(name, name),) for name in REQUIRED])
    known = {
        name: content.pop(source)
        for name in (*REQUIRED, *OPTIONAL, *_people(content, names))
        if (source := names.get(name, name)) in content
    }
    if isinstance(known["human"], list):
        return _run_of_columns(known, content, row.position)
    run = " · ".join(label_text(name, known[name]) or "" for name in RUN_FIELDS if name in known)
    return run, [_row(known, row.position)], set(content)


def _run_of_columns(
    known: Mapping[str, Any], rest: Mapping[str, Any], position: str
) -> tuple[str, list[LabelledVerdict], set[str]]:
    columns = {name: value for name, value in known.items() if isinstance(value, list)}
    single = {name: value for name, value in known.items() if not isinstance(value, list)}
    lengths = {name: len(values) for name, values in columns.items()}
    if "judge" not in columns:
        raise ValueError("judge must be a list like human, got one value; write a list")
    if len(set(lengths.values())) > 1 or not lengths["human"]:
        got = ", ".join(f"{name} {size}" for name, size in lengths.items())
        raise ValueError(
            f"the lists of a run must be equally long and not empty, got {got}; complete them"
        )
    parts = {**single, **rest}
    told = [str(value) for value in parts.values() if isinstance(value, str | int | float)]
    rows = []
    for place in range(lengths["human"]):
        values = {key: column[place] for key, column in columns.items()}
        try:
            rows.append(_row(values, str(place + 1)))
        except ValueError as error:
            raise ValueError(f"item {place + 1}: {error}") from None
    unused = {name for name, value in rest.items() if not isinstance(value, str | int | float)}
    return " · ".join(told) or position, rows, unused


def _row(values: Mapping[str, Any], fallback_id: str) -> LabelledVerdict:
    human = label_text("human", values["human"])
    if human is None:
        raise ValueError("human must be a label, got none; leave the item out or label it")
    people = sorted((name for name in values if _more(name)), key=lambda name: int(name[6:]))
    return LabelledVerdict(
        item_id=label_text("item_id", values.get("item_id")) or fallback_id,
        human=human,
        judge=label_text("judge", values["judge"]),
        swapped=label_text("judge_swapped", values.get("judge_swapped")),
        both_orders="judge_swapped" in values,
        others=tuple(label_text(name, values[name]) for name in people),
        reason=label_text("judge_reason", values.get("judge_reason")),
        lengths=_both(values, "length", _number),
        families=_both(values, "family", label_text),
        place=_place(values.get("shown_first")),
    )


def _place(value: Any) -> Place | None:
    """Return where the first answer stood, by which answer was shown first."""
    text = label_text("shown_first", value)
    if text is None:
        return None
    winner = pair_winner(text)
    if winner not in (_FIRST, _SECOND):
        raise ValueError(
            f"shown_first must be 1 or 2, the answer that the judge saw as A, got {text[:SHOWN]!r}"
        )
    return "first" if winner == _FIRST else "second"


def _both(values: Mapping[str, Any], name: str, read: Any) -> Any:
    fields = (f"{name}_first", f"{name}_second")
    found = tuple(read(field, values.get(field)) for field in fields)
    return None if None in found else found


def label_text(name: str, value: Any) -> str | None:
    """Return a label or an id as text: 1, 1.0 and "1" are one, since JSON files mix them.

    Raises:
        ValueError: It is no single value, or not finite.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(f"{name} must be text or a finite number, got {value}; write a label")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return no_surrogates(str(value).strip()) or None
    raise ValueError(
        f"{name} must be text or a number, got {type(value).__name__}; write one value"
    )


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST:
        raise ValueError(f"{name} must be a number of characters, got {str(value)[:SHOWN]!r}")
    return float(value)


def _people(content: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    return [name for name in {*content, *names} if _more(name)]


def _more(name: str) -> bool:
    return MORE_PEOPLE.fullmatch(name) is not None
