"""The win rate of a challenger by a judge of pairs that people's labels of these pairs validate.

    judged = judge_win_rate(store, spec, pairs, sheet, users=users, cache=cache, now=now)
    judged.scores(examples)  # what the gate takes as the metric `win_rate`

The same labels say whether the judge may count and correct what it errs by; neither needs the other
not to have looked. A judge that is not shown to be usable gives no scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InvalidInputError
from ratchet.files.text import shown_lines
from ratchet.judges.judge import Judge, Judged, asker, model_of, refuse_failure
from ratchet.judges.label_sheet import SheetRead, write_sheet
from ratchet.judges.on_files import LabelledItem, labelled_verdicts
from ratchet.judges.on_store import keep_validation, run_judge
from ratchet.judges.prompts import Item
from ratchet.judges.rubrics import JudgeSpec
from ratchet.judges.validation import DEFAULT_BAR, Bar, validate_judge
from ratchet.judges.validation_report import figure_line
from ratchet.judges.win_rate import WinRate, is_same, win_rate
from ratchet.records import Example, JudgeValidation, digest
from ratchet.store import EventStore

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class JudgedWinRate:
    """A win rate and what it rests on.

    Attributes:
        ids: Of the pairs, in the order of the win rate's scores.
        record: The judge's validation by the labels of these pairs, as stored.
    """

    ids: tuple[str, ...]
    found: WinRate
    judged: Judged
    record: JudgeValidation

    def scores(self, examples: Sequence[Example]) -> tuple[FloatArray, FloatArray]:
        """Return the champion's and the challenger's scores of examples; nan for no score."""
        places = {key: place for place, key in enumerate(self.ids)}
        champion = np.full(len(examples), np.nan)
        challenger = np.full(len(examples), np.nan)
        for row, example in enumerate(examples):
            place = places.get(example.id)
            if place is not None:
                champion[row] = self.found.champion.values[place]
                challenger[row] = self.found.challenger.values[place]
        return champion, challenger

    @property
    def notes(self) -> tuple[str, ...]:
        """Why there is no win rate, where there is none."""
        return (f"win_rate: {self.found.reason}",) if self.found.reason else ()

    def text(self) -> str:
        """Return it in words."""
        asked = self.judged.asked
        lines = [
            f"{self.record.judge}: {self.record.decision} ({'; '.join(self.record.reasons)}); "
            f"{asked.asked} questions asked, {self.judged.reused} answered before"
        ]
        lines += [figure_line(figure) for figure in self.found.figures]
        lines += [f"  unscored: {count} × {why}" for why, count in self.found.unscored.items()]
        return shown_lines(lines)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON-able values."""
        return {
            "judge": self.record.judge,
            "judge_version": self.record.judge_version,
            "decision": self.record.decision,
            "reasons": list(self.record.reasons),
            **self.found.as_json(),
        }


def pair_judge(specs: Sequence[JudgeSpec], name: str | None = None) -> JudgeSpec:
    """Return the judge of pairs: the named one, or the only one that is asked in both orders.

    Raises:
        InvalidInputError: There is none, there are several, or the named one judges no pairs.
    """
    pairwise = [one for one in specs if one.mode == "pairwise" and one.both_orders]
    found = [one for one in pairwise if name is None or one.name == name]
    if len(found) != 1:
        known = ", ".join(one.name for one in pairwise) or "none"
        raise InvalidInputError(
            "win_rate needs one judge in mode pairwise that is asked in both orders, got "
            f"{known if name is None else repr(name)}; "
            + ("name the one to take" if len(pairwise) > 1 else "add it to the file of judges")
        )
    return found[0]


def to_compare(pairs: Sequence[Item], count: int) -> list[Item]:
    """Choose at random which pairs people compare, always the same of the same pairs.

    Args:
        pairs: All pairs.
        count: How many of them differ, at most; pairs of the same text that chance puts between
            them are chosen too. A third of all pairs stays for the judge alone.
    """
    seed = int(digest(["sheet", [pair.id for pair in pairs]])[:12], 16)
    order = np.random.default_rng(seed).permutation(len(pairs))
    shuffled = [pairs[place] for place in order]
    differ = np.cumsum([not is_same(pair) for pair in shuffled])
    return shuffled[: min(int(np.searchsorted(differ, count)) + 1, 2 * len(pairs) // 3)]


def hand_out(path: Path, pairs: Sequence[Item], count: int) -> int:
    """Write a random part of the pairs on a sheet for people; return how many of them differ.

    Args:
        path: Where to write it.
        pairs: All pairs.
        count: How many that differ people are to compare, at most.

    Raises:
        InvalidInputError: The file is there already.
    """
    chosen = to_compare(pairs, count)
    write_sheet(path, pairs, [pair.id for pair in chosen])
    return sum(not is_same(pair) for pair in chosen)


def judge_win_rate(
    store: EventStore,
    spec: JudgeSpec,
    pairs: Sequence[Item],
    sheet: SheetRead,
    *,
    users: Mapping[str, str] | None,
    cache: Path,
    now: Callable[[], datetime],
    bar: Bar = DEFAULT_BAR,
    seed: int = 0,
) -> JudgedWinRate:
    """Judge the pairs in both orders, validate the judge by people's winners, correct its rate.

    Args:
        store: Keeps verdicts and the validation; started again, nothing is asked for twice.
        spec: A judge of pairs (`pair_judge`).
        pairs: All pairs, the challenger's answer first (`pairs_of`).
        sheet: What people said of a random part of them (`read_sheet`).
        users: User by pair, None where pairs are independent.
        cache: Folder of converted local models.
        now: The clock.
        bar: What the judge has to reach.
        seed: Of the bootstrap of the human ceiling.

    Raises:
        ModelError: The judge's model cannot be loaded, or leaves many questions without an answer.
    """
    model, model_digest = model_of(spec, cache)
    judge, ask = Judge(spec, model_digest=model_digest), asker(spec, model)
    asked_about = [pair for pair in pairs if not is_same(pair)]
    judged = run_judge(store, judge, asked_about, ask=ask, now=now)
    refuse_failure(spec.name, judged.asked)
    winners = sheet.winners
    items = [
        LabelledItem(pair, (winners[pair.id],) if pair.id in winners else (), None)
        for pair in asked_about
    ]
    rows = labelled_verdicts(items, judged, paired=True)
    validation = None
    if rows:
        validation = validate_judge(rows, rng=np.random.default_rng(seed), bar=bar)
    labels = digest(
        [[pair.id, pair.answer, pair.other, winners.get(pair.id)] for pair in asked_about]
    )
    record = keep_validation(store, judge, labels, validation, now())
    found = win_rate(
        pairs,
        judged.judgements,
        sheet.worth,
        users=users,
        decision=record.decision,
    )
    return JudgedWinRate(tuple(pair.id for pair in pairs), found, judged, record)
