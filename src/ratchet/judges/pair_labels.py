"""People compare pairs of answers: what they are asked about and what they say, in the store.

    sheet = sheet_of(store, pairs, 100, wanted=60, cycle_id=..., example_set_id=..., now=now)
    keep_labels(store, Path("sheet.csv"), reviewer="ana", now=now)  # on any machine
    sheet.read(pairs, minimum=60)  # what people said, for `judge_win_rate`

The flow that compares two models keeps the pairs in the store. `ratchet export label-sheet` writes
them on a sheet anywhere, and `ratchet review --sheet` brings back what people wrote on it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ratchet.errors import InvalidInputError, WaitingError
from ratchet.files.rows import SetAsideRow, read_rows, set_aside_lines
from ratchet.files.text import counted, printable
from ratchet.judges.judged_win_rate import to_compare
from ratchet.judges.label_sets import TIE
from ratchet.judges.label_sheet import COLUMNS, NEEDED, SheetRead, pair_name, read_sheet
from ratchet.judges.prompts import Item
from ratchet.judges.win_rate import is_same
from ratchet.records import (
    ComparedPair,
    CycleEnd,
    ExampleSet,
    JudgeValidation,
    LabelSheet,
    Message,
    PairLabel,
    derive_id,
)
from ratchet.store import EventStore

logger = logging.getLogger(__name__)

_FEWEST_MORE = 10
"""Pairs that a sheet is extended by at least, so that people are not asked for one at a time."""
ON_DISK = "the home's folder labels"
"""Reviewer of labels on a sheet that an earlier version wrote into the home folder."""


@dataclass(frozen=True, slots=True)
class PairSheet:
    """Pairs of answers that people are asked about.

    Attributes:
        record: What is asked, as stored.
        differing: How many of its pairs differ, so that people have something to compare.
        is_new: Whether it was stored just now.
    """

    store: EventStore
    record: LabelSheet
    differing: int
    is_new: bool

    @property
    def way(self) -> str:
        """Where people compare them."""
        return way_to_label(self.record)

    def wanted(self, minimum: int) -> int:
        """Return how many pairs people must compare: `minimum`, or all where fewer differ."""
        return min(minimum, self.differing)

    def read(self, pairs: Sequence[Item], *, minimum: int) -> SheetRead:
        """Return what people said, once they compared enough.

        Args:
            pairs: All pairs, of which the sheet has a part.
            minimum: So many must be compared, or all where fewer differ.

        Raises:
            WaitingError: People have not compared enough of them yet.
        """
        found = said_about(self.store, self.record, pairs)
        wanted = self.wanted(minimum)
        if found.compared < wanted:
            raise WaitingError(
                f"win_rate needs {wanted} pairs that people compared, got {found.compared}; "
                f"{self.way}; the next run of the loop, or of the deployment `deploy`, goes on by "
                "itself",
                missing=wanted - found.compared,
            )
        return found

    def await_more(
        self, record: JudgeValidation, read: SheetRead, pairs: Sequence[Item], now: datetime
    ) -> None:
        """Wait for more labels where those that there are do not say whether the judge may count.

        Where all pairs of the sheet are compared, more of them are put on it.

        Args:
            record: What those labels say of the judge.
            read: The labels.
            pairs: All pairs, of which the sheet has a part.
            now: The time.

        Raises:
            WaitingError: They do not, and there are pairs that could.
        """
        if record.decision != "not enough labels":
            return
        left = read.open or self._extend(record.more_labels, read, pairs, now)
        if not left:
            return
        more = min(record.more_labels or left, left)
        raise WaitingError(
            f"win_rate needs a judge that is shown to be usable, got {record.judge}: "
            f"{record.reasons[0]}; compare about {more} more pairs: {self.way}",
            missing=more,
            judge=record.judge,
        )

    def _extend(
        self, more: int | None, read: SheetRead, pairs: Sequence[Item], now: datetime
    ) -> int:
        """Put more pairs on the sheet, as many again where nothing says how many; return them."""
        more = max(more or self.differing, _FEWEST_MORE)
        chosen = to_compare(pairs, self.differing + more)
        differing = sum(not is_same(pair) for pair in chosen)
        if differing <= self.differing:
            return 0
        first = self.record.extends or self.record.id
        longer = self.record.model_copy(
            update={
                "id": derive_id("pairs", first, str(len(chosen))),
                "created_at": now,
                "pairs": _compared(chosen),
                "wanted": min(read.compared + more, differing),
                "extends": first,
            }
        )
        if self.store.get(LabelSheet, longer.id) is None:
            self.store.append(longer)
        return differing - self.differing


def way_to_label(record: LabelSheet) -> str:
    """Say where people give the labels of a sheet."""
    return (
        f"write the sheet anywhere with `ratchet export label-sheet --cycle "
        f"{record.cycle_id[:8]} --out sheet.csv`, fill in its column winner, and bring it back "
        "with `ratchet review --sheet sheet.csv`"
    )


def compared_in_words(compared: int, wanted: int) -> str:
    """Say how many pairs people compared, and how many the gate needs where those are others."""
    if compared < wanted:
        return f"{compared:,} of {counted(wanted, 'pair')}"
    return f"{counted(compared, 'pair')}, {wanted:,} needed"


def sheet_of(
    store: EventStore,
    pairs: Sequence[Item],
    count: int,
    *,
    wanted: int,
    cycle_id: str,
    example_set_id: str,
    now: datetime,
    folder: Path | None = None,
) -> PairSheet:
    """Return the sheet of exactly these answers; store it where there is none yet.

    Args:
        store: Keeps it.
        pairs: All pairs; a random part of them is put on it.
        count: How many that differ people are to compare, at most.
        wanted: So many must be compared before the gate decides, or all where fewer differ.
        cycle_id: Whose decision waits for it.
        example_set_id: The set that the pairs' ids are examples of.
        now: The time.
        folder: Where an earlier version wrote such sheets; what people wrote there is kept.
    """
    key = derive_id("pairs", *(f"{pair.id} {pair.answer} {pair.other}" for pair in pairs))
    chosen = to_compare(pairs, count)
    differing = sum(not is_same(pair) for pair in chosen)
    stored = store.get(LabelSheet, key)
    for longer in store.records(LabelSheet) if stored else ():
        if longer.extends == key:
            stored, differing = longer, sum(not is_same(pair) for pair in _pairs(longer, {}))
    record = stored or LabelSheet(
        id=key,
        created_at=now,
        cycle_id=cycle_id,
        example_set_id=example_set_id,
        pairs=_compared(chosen),
        wanted=min(wanted, differing),
    )
    if stored is None:
        store.append(record)
    earlier = folder and folder / f"pairs-{key[:12]}.csv"
    if earlier and earlier.exists():
        read = read_sheet(earlier, pairs)
        for line in set_aside_lines(read.set_aside):
            logger.warning("%s: %s", earlier.name, line)
        _keep(store, record, read, pairs, ON_DISK, now)
    return PairSheet(store, record, differing, stored is None)


def _compared(pairs: Sequence[Item]) -> tuple[ComparedPair, ...]:
    return tuple(
        ComparedPair(example_id=pair.id, first=pair.answer, second=pair.other or "")
        for pair in pairs
    )


def pairs_on(store: EventStore, record: LabelSheet) -> list[Item]:
    """Return the pairs of a sheet with their conversations.

    Raises:
        InvalidInputError: The set of examples is not in this store.
    """
    examples = store.get(ExampleSet, record.example_set_id)
    if examples is None:
        raise InvalidInputError(
            f"a sheet needs its examples, got no set {record.example_set_id!r} in this store; run "
            "it where the loop's store is (RATCHET_STORE_URL)"
        )
    asked = {example.id: tuple(example.messages) for example in examples.examples}
    return _pairs(record, asked)


def bare_pairs(record: LabelSheet) -> list[Item]:
    """Return the pairs of a sheet without their conversations."""
    return _pairs(record, {})


def _pairs(record: LabelSheet, asked: Mapping[str, tuple[Message, ...]]) -> list[Item]:
    """Return the pairs of a sheet; by name, and as what people compare, all they need is here."""
    return [
        Item(pair.example_id, asked.get(pair.example_id, ()), pair.first, pair.second)
        for pair in record.pairs
    ]


def said_about(store: EventStore, record: LabelSheet, pairs: Sequence[Item]) -> SheetRead:
    """Return what people said of a sheet's pairs, by the labels in the store.

    Of one person the latest label counts; of several people what most of them say, a tie where
    none is said most often.
    """
    votes = votes_on(store, record)
    winners = {pair.id: _most(votes[pair_name(pair)]) for pair in pairs if pair_name(pair) in votes}
    compared = sum(pair.id in winners and not is_same(pair) for pair in pairs)
    return SheetRead(winners, compared, len(record.pairs) - len(winners), ())


def waiting_sheets(store: EventStore) -> list[tuple[LabelSheet, int]]:
    """Return the sheets that a gate waits for, with how many of their pairs are compared.

    A cycle waits for its latest sheet, since an earlier one is about other answers, and for none
    once it has ended.
    """
    of_cycle = {record.cycle_id: record for record in store.records(LabelSheet)}
    ended = store.present(CycleEnd, list(of_cycle))
    found = []
    for cycle_id, record in of_cycle.items():
        if cycle_id not in ended:
            compared = said_about(store, record, _pairs(record, {})).compared
            if compared < record.wanted:
                found.append((record, compared))
    return found


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of a filled-in sheet.

    Attributes:
        sheet: The sheet that it is.
        new: Labels stored.
        repeated: Labels that the same person had given before.
        open: Rows that nobody has filled in.
        compared: Pairs that differ and that somebody has compared by now.
        set_aside: Rows that broke a rule.
    """

    sheet: LabelSheet
    new: int
    repeated: int
    open: int
    compared: int
    set_aside: tuple[SetAsideRow, ...]


def keep_labels(store: EventStore, path: Path, *, reviewer: str, now: datetime) -> Kept:
    """Store what a person wrote on a sheet; the same sheet again changes nothing.

    Raises:
        InvalidInputError: It is no sheet of pairs, or its pairs are those of no sheet here.
    """
    record, pairs = _sheet_in(store, path)
    read = read_sheet(path, pairs)
    new, repeated = _keep(store, record, read, pairs, reviewer, now)
    compared = said_about(store, record, pairs).compared
    return Kept(record, new, repeated, read.open, compared, read.set_aside)


def _sheet_in(store: EventStore, path: Path) -> tuple[LabelSheet, list[Item]]:
    """Return the stored sheet that most rows of a file are about."""
    with read_rows(path, needs=[(name,) for name in NEEDED], names=COLUMNS) as rows:
        names = [str(row.fields.get("pair") or "").strip() for row in rows]
    best: tuple[int, LabelSheet, list[Item]] | None = None
    for record in store.records(LabelSheet):
        pairs = _pairs(record, {})
        known = {name for pair in pairs for name in (pair_name(pair), pair_name(pair)[1:])}
        rows_of_it = sum(name in known for name in names)
        if rows_of_it and (best is None or rows_of_it >= best[0]):
            best = rows_of_it, record, pairs
    if best is None:
        raise InvalidInputError(
            f"a sheet must be about pairs that this store asks people about, got "
            f"{printable(path.name)!r}, whose {len(names)} rows are about none; write a new one "
            "with `ratchet export label-sheet`"
        )
    return best[1], best[2]


def _keep(
    store: EventStore,
    record: LabelSheet,
    read: SheetRead,
    pairs: Sequence[Item],
    reviewer: str,
    now: datetime,
) -> tuple[int, int]:
    """Return how many labels were stored, and how many were there."""
    known = _latest(store, record)
    new = 0
    with store.atomic():
        for pair in pairs:
            winner, name = read.winners.get(pair.id), pair_name(pair)
            before = known.get((name, reviewer))
            if winner is None or (before is not None and before.winner == winner):
                continue
            label = PairLabel.model_validate(
                {
                    "id": derive_id("pair label", record.id, name, reviewer, winner, now),
                    "created_at": now,
                    "sheet_id": record.id,
                    "example_id": pair.id,
                    "pair": name,
                    "winner": winner,
                    "reviewer": reviewer,
                }
            )
            new += store.append(label)
    return new, len(read.winners) - new


def keep_label(
    store: EventStore,
    sheet_id: str,
    pair: str,
    winner: str,
    reviewer: str,
    given: str,
    now: datetime,
) -> bool:
    """Store the winner of one pair of a sheet; False where it is stored already.

    Args:
        store: The store.
        sheet_id: The sheet.
        pair: Names the pair (`pair_name`).
        winner: "1" the first answer, "2" the second, "tie".
        reviewer: Who says so.
        given: Id of the decision that it is from.
        now: The time.
    """
    key = derive_id("pair label", sheet_id, pair, given)
    if store.get(PairLabel, key) is not None:
        return False
    record = store.get(LabelSheet, sheet_id)
    named = {pair_name(one): one for one in _pairs(record, {})} if record is not None else {}
    found = named.get(pair)
    if found is None:
        raise InvalidInputError(
            f"a pair must be on a sheet of this store, got {printable(pair, 40)!r}; run "
            "`ratchet review fill`"
        )
    label = {
        "id": key,
        "created_at": now,
        "sheet_id": sheet_id,
        "example_id": found.id,
        "pair": pair,
        "winner": winner,
        "reviewer": reviewer,
    }
    return store.append(PairLabel.model_validate(label))


def votes_on(store: EventStore, record: LabelSheet) -> dict[str, list[str]]:
    """Return what people said of each pair of a sheet, by its name."""
    votes: dict[str, list[str]] = {}
    for (name, _), label in _latest(store, record).items():
        votes.setdefault(name, []).append(label.winner)
    return votes


def _latest(store: EventStore, record: LabelSheet) -> dict[tuple[str, str], PairLabel]:
    """Return the label that counts of each person about each pair, by its name.

    Labels on the sheet that it extends are about the same pairs, and so are those on its
    extensions.
    """
    first = record.extends or record.id
    same = {one.id for one in store.records(LabelSheet) if (one.extends or one.id) == first}
    labels = store.records(PairLabel)
    return {(one.pair, one.reviewer): one for one in labels if one.sheet_id in same}


def _most(votes: Sequence[str]) -> str:
    counted = Counter(votes).most_common()
    is_split = len(counted) > 1 and counted[0][1] == counted[1][1]
    return TIE if is_split else counted[0][0]
