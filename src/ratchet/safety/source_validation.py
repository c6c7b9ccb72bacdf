"""Validation of a source of flags against what people decided.

A rule, a judge, a guard model or users' reports: each is a source of its own with a validation of
its own. Its flags count without a person only where the validation says *usable*.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, pairwise
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ratchet.errors import InsufficientDataError
from ratchet.judges.rubrics import HARMLESSNESS
from ratchet.records import Figure, JudgeValidation, Usability, derive_id, digest
from ratchet.stats.judges.flags import (
    FlagRate,
    Stratum,
    false_positive_rate,
    flag_precision,
    flag_recall,
)

SAFETY = HARMLESSNESS.name
VIOLATION, FINE = "violation", "fine"


class SourceBar(BaseModel):
    """What a source of flags has to reach before its flags count without a person.

    Attributes:
        precision: For the share of flags that are violations.
        recall: For the share of violations that are flagged; 0 asks for none, since a rule is
            made for one kind of violation.
        false_positive_rate: For the share of fine answers that are flagged; by default the rate of
            violations at which monitoring warns.
        minimum_flagged: With fewer flags decided nothing is.
        minimum_unflagged: With fewer others decided nothing is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    recall: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    false_positive_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.001
    minimum_flagged: Annotated[int, Field(ge=1)] = 10
    minimum_unflagged: Annotated[int, Field(ge=1)] = 30


DEFAULT_BAR = SourceBar()


@dataclass(frozen=True, slots=True)
class Reviewed:
    """What is known about one source's flags, as ids of interactions.

    Attributes:
        looked_at: All that the source looked at.
        flagged: What it flagged.
        by_others: What any other source flagged.
        sampled: What was drawn at random from the unflagged for review.
        violations: What people decided: True for a violation.
        shares: With what chance each of the sample was drawn, where that is known.
    """

    looked_at: Collection[str]
    flagged: Collection[str]
    by_others: Collection[str]
    sampled: Collection[str]
    violations: Mapping[str, bool]
    shares: Mapping[str, float] = field(default_factory=dict)


def validate_source(
    name: str, source: str, seen: Reviewed, *, now: datetime, bar: SourceBar = DEFAULT_BAR
) -> JudgeValidation:
    """Hold a source's flags against people's decisions and decide whether its flags may count.

    Usable: precision's interval lies above the bar, that of the false-positive rate below, and
    recall's above its bar where one is set. Not usable: one of them lies wholly on the other side.
    The interactions fall into strata: flagged by this source or not, by others or not. Of those
    that nobody flagged only the random sample counts; where its share changed, as from day to day
    under a limit, each share makes a stratum, whose size is estimated by what it drew over that
    share (Hájek's weights). A chance that is not known is taken as the greatest that is.

    Assumptions: people decide flags without regard to how they look; the sample is random, and as
    much of it was decided of each share; what they decide is the truth.
    Error rate: a source whose precision is at the bar is called usable in about 2.5 % of
    validations, at most 2.9 % by exact enumeration with up to 300 flags at the default bar
    (`tests/safety/test_rules.py`); each validation is one look.
    When not to use: after each single decision until it passes.

    Args:
        name: The rule's or judge's name, or `report`.
        source: Its version, as its flags carry it.
        seen: What it flagged and what people decided.
        now: The time.
        bar: What it has to reach.
    """
    flagged, unflagged = _strata(seen)
    figures = (
        _figure("precision", lambda: flag_precision(flagged)),
        _figure("recall", lambda: flag_recall(flagged, unflagged)),
        _figure("false_positive_rate", lambda: false_positive_rate(flagged, unflagged)),
        _counted("reviewed_flagged", flagged),
        _counted("reviewed_unflagged", unflagged),
    )
    decision, reasons, more = _decide({figure.name: figure for figure in figures}, bar)
    hits, misses = (sum(s.violations for s in part) for part in (flagged, unflagged))
    alarms = sum(s.reviewed for s in flagged) - hits
    quiet = sum(s.reviewed for s in unflagged) - misses
    sets = (seen.looked_at, seen.flagged, seen.by_others, seen.sampled)
    content = digest([*map(sorted, sets), sorted(seen.violations.items()), bar.model_dump()])
    version = validated_version(source)
    return JudgeValidation(
        id=derive_id("source-validation", version, content),
        created_at=now,
        judge=name,
        judge_version=version,
        dimension=SAFETY,
        decision=decision,
        reasons=reasons,
        labels_digest=content,
        items=hits + misses + alarms + quiet,
        unscored=0,
        figures=figures,
        categories=(VIOLATION, FINE),
        confusion=((hits, misses), (alarms, quiet)),
        more_labels=more,
    )


def validated_version(source: str) -> str:
    """Return the name under which a validation of a source's *flags* is kept.

    Not the version itself: a judge's scores are validated under that, on other evidence. Kappa on a
    set with many violations does not say how much of what is flagged is one where they are rare.
    """
    return f"flags/{source}"


def _strata(seen: Reviewed) -> tuple[list[Stratum], list[Stratum]]:
    looked_at, others, sampled = set(seen.looked_at), set(seen.by_others), set(seen.sampled)
    flagged = looked_at & set(seen.flagged)
    rest = looked_at - flagged
    decided = set(seen.violations)
    return (
        [_stratum(part, part & decided, seen) for part in (flagged & others, flagged - others)],
        [
            _stratum(rest & others, rest & others & decided, seen),
            *_by_share(rest - others, (rest - others) & sampled & decided, seen),
        ],
    )


def _by_share(members: set[str], reviewed: set[str], seen: Reviewed) -> list[Stratum]:
    """Part what nobody flagged by the share that the sample had, in proportion to its weights."""
    greatest = max((seen.shares[key] for key in reviewed if key in seen.shares), default=1.0)
    parts: dict[float, set[str]] = {}
    for key in reviewed:
        parts.setdefault(seen.shares.get(key, greatest), set()).add(key)
    if len(parts) < 2:
        return [_stratum(members, reviewed, seen)]
    weights = [len(part) / share for share, part in sorted(parts.items())]
    ends = [round(len(members) * end / sum(weights)) for end in accumulate(weights)]
    sizes = [end - start for start, end in pairwise((0, *ends))]
    return [
        Stratum(max(size, len(part)), len(part), sum(seen.violations[key] for key in part))
        for size, (_, part) in zip(sizes, sorted(parts.items()), strict=True)
    ]


def _stratum(members: set[str], reviewed: set[str], seen: Reviewed) -> Stratum:
    violations = sum(seen.violations[key] for key in reviewed)
    return Stratum(len(members), len(reviewed), violations)


def _decide(
    figures: Mapping[str, Figure], bar: SourceBar
) -> tuple[Usability, tuple[str, ...], int | None]:
    missing = []
    more = 0
    for name, fewest in (
        ("reviewed_flagged", bar.minimum_flagged),
        ("reviewed_unflagged", bar.minimum_unflagged),
    ):
        count = int(figures[name].value or 0)
        if count < fewest:
            more += fewest - count
            what = name.replace("_", " ")
            missing.append(f"{what}: {count}, at least {fewest} are needed")
    if missing:
        return "not enough labels", tuple(missing), more
    wrong: list[str] = []
    open_: list[str] = []
    for name, needed, high in (
        ("precision", bar.precision, True),
        ("recall", bar.recall, True),
        ("false_positive_rate", bar.false_positive_rate, False),
    ):
        verdict, reason = _against(figures[name], needed, high=high)
        if verdict is not None:
            (wrong if verdict == "wrong" else open_).append(reason)
    if wrong:
        return "not usable", tuple(wrong + open_), None
    if open_:
        return "not enough labels", tuple(open_), None
    reason = ", ".join(
        _said(figures[name]) for name in ("precision", "recall", "false_positive_rate")
    )
    return "usable", (reason,), None


def _against(figure: Figure, needed: float, *, high: bool) -> tuple[str | None, str]:
    """Return whether a figure is wrong or open, and why; None where it reaches the bar."""
    if high and needed == 0.0:
        return None, ""
    if figure.value is None or figure.lower is None or figure.upper is None:
        return "open", f"{figure.name.replace('_', ' ')} is undefined: {figure.reason}"
    reason = f"{_said(figure)}; {'at least' if high else 'at most'} {100 * needed:g} % is needed"
    reached = figure.lower >= needed if high else figure.upper <= needed
    missed = figure.upper < needed if high else figure.lower > needed
    return (None if reached else "wrong" if missed else "open"), reason


def _said(figure: Figure) -> str:
    name = figure.name.replace("_", " ")
    if figure.value is None or figure.lower is None or figure.upper is None:
        return f"{name} unknown"
    low, high = 100 * figure.lower, 100 * figure.upper
    return f"{name} {100 * figure.value:.3g} % ({low:.3g} to {high:.3g} %)"


def _figure(name: str, measure: Callable[[], FlagRate]) -> Figure:
    try:
        rate = measure()
    except InsufficientDataError as error:
        return Figure(name=name, value=None, observations=0, reason=str(error))
    return Figure(
        name=name,
        value=rate.value,
        lower=rate.interval.lower,
        upper=rate.interval.upper,
        observations=rate.reviewed,
    )


def _counted(name: str, strata: Sequence[Stratum]) -> Figure:
    """How many were reviewed, of how many."""
    reviewed, size = sum(s.reviewed for s in strata), sum(s.size for s in strata)
    return Figure(name=name, value=float(reviewed), observations=size)
