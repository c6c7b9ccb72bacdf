"""Win rate of the challenger against the champion by a validated judge, as the gate takes it.

    pairs = pairs_of(examples, champion_answers, challenger_answers)
    judged = judge_items(judge, [pair for pair in pairs if not is_same(pair)], ...)
    found = win_rate(pairs, judged.judgements, labels, users=users, decision=validation.decision)
    found.champion, found.challenger  # scores of the gate: 0.5, and what each pair says

The judge sees every pair in both orders; verdicts that depend on the order are ties. People label a
random part. The rate is what people would say at equal length, whatever the judge errs by. Without
a usable judge, or with too few labels, there are no scores, and a gate that asks for them never
promotes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratchet.errors import InsufficientDataError, InvalidInputError, UnequalMissingError
from ratchet.evaluation.scored import Scored, mean_scored
from ratchet.judges.effects import figure, undefined
from ratchet.judges.judge import Judgement
from ratchet.judges.prompts import Item
from ratchet.records import WIN_RATE, Example, Figure, Usability, offered
from ratchet.stats.judges.length import length_controlled_win_rate
from ratchet.stats.judges.win_rate import CorrectedWinRate, corrected_win_rate

FloatArray = NDArray[np.float64]
EVEN = 0.5
SEEN_LENGTH = math.log(1.05)
"""Answers whose lengths differ by less are equally long to whoever reads them."""
WITHOUT_A_JUDGE: Mapping[Usability, str] = {
    "not usable": "the judge is not usable on these pairs; take another judge",
    "not enough labels": "there are not enough labels to tell whether the judge is usable on these "
    "pairs; have people compare more",
}


@dataclass(frozen=True, slots=True, eq=False)
class WinRate:
    """How often the challenger wins, by whom, and what the gate makes of it.

    Attributes:
        figures: `judge_raw_win_rate`, `judge_length_controlled_win_rate`, `length_effect` (by the
            judge alone), `same_winner_in_both_orders`, `win_rate_uncontrolled` and `win_rate`
            (corrected by people; the second at equal length).
        champion: 0.5 for each pair, nan without a score.
        challenger: What each pair says of the win rate; the mean is the rate.
        unscored: Pairs without a verdict, by kind of reason.
        reason: Why there are no scores; None where there are.
    """

    figures: tuple[Figure, ...]
    champion: Scored
    challenger: Scored
    unscored: dict[str, int]
    reason: str | None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON-able values, without the scores."""
        found = {one.name: one.model_dump(exclude={"name"}) for one in self.figures}
        return {"figures": found, "unscored": self.unscored, "reason": self.reason}


def pairs_of(
    examples: Sequence[Example], champion: Mapping[str, str], challenger: Mapping[str, str]
) -> list[Item]:
    """Return the pairs that a judge is asked about, the challenger's answer first.

    Args:
        examples: The frozen examples.
        champion: Its answers by example id; examples that one of the two did not answer are left
            out (they are missing in every metric).
        challenger: Its answers.
    """
    return [
        Item(
            one.id,
            tuple(one.messages),
            challenger[one.id],
            champion[one.id],
            tools=offered(list(one.tools or ())),
        )
        for one in examples
        if one.id in champion and one.id in challenger
    ]


def users_of(examples: Sequence[Example]) -> dict[str, str] | None:
    """Return whose each example is, as far as that is known; None where no example has a user."""
    found = {one.id: one.user_id for one in examples if one.user_id is not None}
    return found or None


def is_same(pair: Item) -> bool:
    """Whether both answers are the same text: a tie, whoever judges, and not worth asking."""
    return pair.answer == pair.other


def win_rate(
    pairs: Sequence[Item],
    judgements: Sequence[Judgement],
    labels: Mapping[str, float],
    *,
    users: Mapping[str, str] | None = None,
    decision: Usability,
) -> WinRate:
    """Win rate of the challenger, corrected by people and at equal length.

    Args:
        pairs: All pairs (`pairs_of`).
        judgements: Of them, in any order; pairs of the same text need none.
        labels: Worth of the challenger's answer by people, in [0, 1], by pair; on a random part of
            the pairs.
        users: User by pair; None if pairs are independent. A pair without one stands alone.
        decision: What the judge's validation came to; only a usable judge gives scores.

    Raises:
        InvalidInputError: A pair has one answer, ids repeat, or a label or judgement is about no
            pair.
    """
    ids = _checked(pairs, judgements, labels)
    found = {one.item_id: one for one in judgements}
    verdicts = np.array([_verdict(pair, found.get(pair.id)) for pair in pairs])
    human = np.array([labels.get(key, math.nan) for key in ids])
    lengths = np.array([_longer(pair) for pair in pairs])
    clusters = None
    if users is not None:
        clusters = np.array([f"user {users[key]}" if key in users else key for key in ids])
    plain, why_not = _corrected(human, verdicts, None, clusters)
    controlled, reason = plain, why_not
    if lengths.any():  # else every pair is equally long as it is
        controlled, reason = _corrected(human, verdicts, lengths, clusters)
    if decision != "usable":
        reason = WITHOUT_A_JUDGE[decision]
    values = np.full(len(ids), np.nan)
    if controlled is not None and reason is None:
        values = controlled.values
    return WinRate(
        figures=(
            *_of_judge(verdicts, lengths, clusters),
            _same_winner(judgements),
            _shown("win_rate_uncontrolled", plain, why_not),
            _shown(WIN_RATE, controlled, reason),
        ),
        champion=mean_scored(WIN_RATE, np.where(np.isnan(values), np.nan, EVEN)),
        challenger=mean_scored(WIN_RATE, values),
        unscored=_unscored(pairs, found),
        reason=reason,
    )


def _checked(
    pairs: Sequence[Item], judgements: Sequence[Judgement], labels: Mapping[str, float]
) -> list[str]:
    ids = [pair.id for pair in pairs]
    alone = [pair.id for pair in pairs if pair.other is None]
    if alone:
        raise InvalidInputError(f"a pair needs two answers, got one for {alone[0]!r}")
    judged = [one.item_id for one in judgements]
    if len(set(ids)) < len(ids) or len(set(judged)) < len(judged):
        raise InvalidInputError("pairs and judgements must have an id each, got one twice")
    strangers = [key for key in (*judged, *labels) if key not in set(ids)]
    if strangers:
        raise InvalidInputError(
            f"judgements and labels must be about the pairs, got {strangers[0]!r}, which is none"
        )
    return ids


def _verdict(pair: Item, judgement: Judgement | None) -> float:
    if is_same(pair):
        return EVEN
    if judgement is None or judgement.score is None or judgement.consistent is None:
        return math.nan  # one order alone is the judge's taste for places too
    return judgement.score


def _longer(pair: Item) -> float:
    """By how much the first answer is longer, on the scale of logarithms; 0 where nobody sees it.

    Taken as it is, a character more in every better answer would explain why it is better, and no
    number of labels would tell that from what it says.
    """
    difference = _length(pair.answer) - _length(pair.other or "")
    return difference if abs(difference) >= SEEN_LENGTH else 0.0


def _length(text: str) -> float:
    return math.log(len(text) + 1.0)


def _corrected(
    labels: FloatArray,
    verdicts: FloatArray,
    lengths: FloatArray | None,
    clusters: NDArray[np.str_] | None,
) -> tuple[CorrectedWinRate | None, str | None]:
    try:
        return corrected_win_rate(labels, verdicts, lengths, clusters=clusters), None
    except (InsufficientDataError, UnequalMissingError) as error:
        return None, str(error)  # a fact of the data; labels out of range are the caller's mistake


def _of_judge(
    verdicts: FloatArray, lengths: FloatArray, clusters: NDArray[np.str_] | None
) -> list[Figure]:
    """By the judge alone: its intervals hold for its verdicts, not for people's."""
    try:
        found = length_controlled_win_rate(verdicts, lengths, clusters=clusters)
    except InsufficientDataError as error:
        return [undefined("judge_length_controlled_win_rate", error)]
    raw, effect, pairs = found.raw, found.length_effect, found.pairs
    return [
        figure("judge_raw_win_rate", raw.estimate, raw.interval, pairs),
        figure("judge_length_controlled_win_rate", found.estimate, found.interval, pairs),
        figure("length_effect", effect.estimate, effect.interval, pairs),
    ]


def _same_winner(judgements: Sequence[Judgement]) -> Figure:
    asked = [one.consistent for one in judgements if one.consistent is not None]
    share = sum(asked) / len(asked) if asked else None
    reason = None if asked else "no pair has a verdict in both orders"
    return Figure(
        name="same_winner_in_both_orders", value=share, observations=len(asked), reason=reason
    )


def _shown(name: str, found: CorrectedWinRate | None, reason: str | None) -> Figure:
    if found is None or reason is not None:
        return Figure(name=name, value=None, observations=0, reason=reason)
    return figure(name, found.estimate, found.interval, found.labelled + found.unlabelled)


def _unscored(pairs: Sequence[Item], found: Mapping[str, Judgement]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for pair in pairs:
        judgement = found.get(pair.id)
        if math.isnan(_verdict(pair, judgement)):
            reason = "not asked" if judgement is None else judgement.reason or "one order alone"
            kind = reason.split(":")[0]
            counts[kind] = counts.get(kind, 0) + 1
    return counts
