"""Juries: several judges of the same items, by majority or weighted by how each one errs.

    juries:
      - {name: panel, judges: [one, another, third], method: dawid_skene}

A jury is validated as one judge is, and may count under the same rule. Judges that share
a model family err together: three of them are worth little more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ratchet.errors import InvalidInputError
from ratchet.judges.judge import Judgement
from ratchet.judges.rubrics import JudgeSpec, read_judges
from ratchet.records import Identifier, digest
from ratchet.stats.agreement.dawid_skene import MISSING, TIE, dawid_skene, majority_vote
from ratchet.stats.arrays import FloatArray, IntArray

PAIR_OUTCOMES = ("second", "tie", "first")
EVEN = 1e-9  # between the two winners of a pair there is then nothing but rounding


class JurySpec(BaseModel):
    """Several judges that decide together.

    Attributes:
        judges: Their names; they judge one dimension in one mode.
        method: The most frequent verdict, or Dawid and Skene's model of how each judge errs, which
            needs three judges.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Identifier
    judges: Annotated[tuple[Identifier, ...], Field(min_length=2)]
    method: Literal["majority", "dawid_skene"] = "majority"

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if len(set(self.judges)) < len(self.judges):
            raise ValueError(f"a jury names each judge once, got {', '.join(self.judges)}")
        if self.method == "dawid_skene" and len(self.judges) < 3:
            raise ValueError(
                f"dawid_skene needs 3 judges, got {len(self.judges)}; add one or take majority"
            )
        return self


def load_juries(path: Path, judges: Sequence[JudgeSpec]) -> tuple[JurySpec, ...]:
    """Read the juries of a file of judges.

    Raises:
        InvalidInputError: A jury names a judge that is not there, or judges of different dimensions
            or modes; or an entry breaks a rule.
    """
    entries = read_judges(path).get("juries") or []
    if not isinstance(entries, list):
        raise InvalidInputError(f"{path.name}: juries must be a list, got {entries!r}")
    known = {judge.name: judge for judge in judges}
    juries, wrong = [], []
    for place, entry in enumerate(entries):
        try:
            jury = JurySpec.model_validate(entry)
        except ValidationError as error:
            wrong += [
                f"juries.{place}: {found['msg'].removeprefix('Value error, ')}"
                for found in error.errors()
            ]
            continue
        missing = [name for name in jury.judges if name not in known]
        members = [known[name] for name in jury.judges if name in known]
        if missing:
            wrong.append(f"juries.{place}: no judge is named {', '.join(missing)}")
        elif len({(judge.mode, judge.dimension) for judge in members}) > 1:
            wrong.append(f"juries.{place}: its judges must share dimension and mode")
        else:
            juries.append(jury)
    if wrong:
        raise InvalidInputError(f"{path.name}: " + "; ".join(wrong))
    return tuple(juries)


def jury_version(spec: JurySpec, versions: Sequence[str]) -> str:
    """Return the version of a jury, which changes with that of each member."""
    return f"{spec.name[:60]}-{digest([spec.method, *versions])[:16]}"


def outcomes_of(spec: JudgeSpec) -> tuple[str, ...]:
    """Return the outcomes of a judge's judgements, worst first."""
    return PAIR_OUTCOMES if spec.mode == "pairwise" else spec.menu


def combine(
    spec: JurySpec,
    outcomes: Sequence[str],
    score: Callable[[str], float],
    panels: Sequence[Sequence[Judgement]],
) -> tuple[Judgement, ...]:
    """Return what a jury says of each item.

    A split vote is a tie of the pair; on a menu without ties it is unscored.

    Args:
        spec: The jury.
        outcomes: All outcomes, in order.
        score: Worth of an outcome.
        panels: Judgements of each judge on the same items, in the same order.

    Raises:
        InvalidInputError: The judges did not judge the same items.
        InsufficientDataError: The method needs more judges or verdicts.
    """
    ids = [[judgement.item_id for judgement in panel] for panel in panels]
    if any(other != ids[0] for other in ids[1:]):
        raise InvalidInputError("the judges of a jury must judge the same items in one order")
    place = {outcome: index for index, outcome in enumerate(outcomes)}
    votes = np.array(
        [
            [
                MISSING if judgement.outcome is None else place[judgement.outcome]
                for judgement in panel
            ]
            for panel in panels
        ]
    ).T
    if spec.method == "majority":
        winners = majority_vote(votes, classes=len(outcomes)).winners
    elif tuple(outcomes) == PAIR_OUTCOMES:
        winners = _weighted_winners(votes)
    else:
        winners = _likeliest(dawid_skene(votes, classes=len(outcomes)).probabilities)
    return tuple(
        _judgement(item_id, int(winner), outcomes, score)
        for item_id, winner in zip(ids[0], winners, strict=True)
    )


def _likeliest(probabilities: FloatArray) -> IntArray:
    unvoted = np.isnan(probabilities).any(axis=1)
    return np.where(unvoted, MISSING, np.nan_to_num(probabilities).argmax(axis=1))


def _weighted_winners(votes: IntArray) -> IntArray:
    """Winners of pairs by Dawid and Skene's model, which must not learn whose answer is whose.

    Each pair counts in both places. Otherwise the model would learn how often the first answer
    wins and vote for it where the judges leave a doubt: right where one system nearly always wins,
    and without a look at the answers.
    """
    last = len(PAIR_OUTCOMES) - 1
    exchanged = np.where(votes == MISSING, MISSING, last - votes)
    both = dawid_skene(np.vstack([votes, exchanged]), classes=len(PAIR_OUTCOMES)).probabilities
    fitted = both[: len(votes)]
    winners = _likeliest(fitted)
    even = np.abs(fitted[:, 0] - fitted[:, last]) <= EVEN
    return np.where(even & (winners != MISSING), PAIR_OUTCOMES.index("tie"), winners)


def _judgement(
    item_id: str, winner: int, outcomes: Sequence[str], score: Callable[[str], float]
) -> Judgement:
    if winner == MISSING:
        return Judgement(item_id, None, None, "no judge of the jury has a verdict", None, ())
    if winner == TIE and "tie" not in outcomes:
        return Judgement(item_id, None, None, "the jury is split", None, ())
    outcome = "tie" if winner == TIE else outcomes[winner]
    return Judgement(item_id, outcome, score(outcome), None, None, ())
