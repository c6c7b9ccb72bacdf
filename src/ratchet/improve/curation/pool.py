"""Rows that may be trained on, and the steps that narrow them down, the same for every kind of set.

pool, report = narrow(pool, Background(outcomes, quality, protected, config, context))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ratchet.errors import InsufficientDataError
from ratchet.evaluation.metrics import normalise_answer
from ratchet.improve.curation.config import (
    ClusterRequest,
    CurationConfig,
    Demonstration,
    JudgedPair,
)
from ratchet.improve.curation.decontamination import Guard
from ratchet.improve.curation.duplicates import drop_near_duplicates
from ratchet.improve.curation.endings import cut_answers
from ratchet.improve.curation.poisoning import SuspectGroup, cap_rows, numbered, suspect
from ratchet.improve.curation.shingles import compact
from ratchet.outcomes.join import Outcomes
from ratchet.outcomes.quality import Quality, QualityWeights

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
ObjectArray = NDArray[np.object_]

DEMONSTRATED, REQUESTED, CORRECTED, PREFERRED, RATED = range(5)


@dataclass(frozen=True, slots=True)
class Context:
    """What is known besides interactions and feedback.

    Attributes:
        withheld: Ids of interactions that are flagged as unsafe and that nobody reviewed yet; those
            that were found unsafe are left out as well.
        refused: Ids of interactions that must not be trained on: no consent, or kept too long.
        endings: Finish reasons by interaction, at least those of answers that are not whole.
        judged: Answers that a judge compared, in both orders.
        demonstrations: Answers of experts.
        requests: Examples wanted for failure clusters.
        reviewed: What reviewers hold answers to be, by interaction: good or not.
        propensity: Chance that an interaction gets feedback, where it is known.
        vectors_of: Returns vectors of the prompts at some places of the outcomes, for the agreement
            of users with each other.
        weights: How the quality was weighed.
    """

    withheld: Collection[str] = ()
    refused: Collection[str] = ()
    endings: Mapping[str, str] = field(default_factory=dict)
    judged: tuple[JudgedPair, ...] = ()
    demonstrations: tuple[Demonstration, ...] = ()
    requests: tuple[ClusterRequest, ...] = ()
    reviewed: Mapping[str, bool] = field(default_factory=dict)
    propensity: Mapping[str, float] = field(default_factory=dict)
    vectors_of: Callable[[IntArray], NDArray[np.float32]] | None = None
    weights: QualityWeights = field(default_factory=QualityWeights)


@dataclass(frozen=True, slots=True)
class Background:
    """Everything that a selection looks at."""

    outcomes: Outcomes
    quality: Quality
    protected: Collection[str]
    config: CurationConfig
    context: Context


@dataclass(frozen=True, slots=True)
class Pool:
    """Rows under consideration, as arrays of shape (n,).

    Attributes:
        position: Place of the interaction in the outcomes; demonstrations come after them.
        target: The answer to learn, to label, or the better one.
        other: The worse answer of a pair, `up` or `down` of a labelled one, else "".
        other_position: Place of the interaction with the better answer of a pair.
        rank: `DEMONSTRATED` to `RATED`; a lower one is preferred.
    """

    position: IntArray
    key: ObjectArray
    prompt: ObjectArray
    target: ObjectArray
    other: ObjectArray
    other_position: IntArray
    rank: IntArray
    user: ObjectArray
    segment: ObjectArray
    moment: IntArray
    cluster: ObjectArray
    lower: FloatArray
    weight: FloatArray

    def __len__(self) -> int:
        return len(self.position)

    def take(self, rows: BoolArray | IntArray) -> Pool:
        """Return some rows, given as a mask or as indices."""
        return Pool(**{item.name: getattr(self, item.name)[rows] for item in fields(self)})

    def by_preference(self) -> IntArray:
        """Return the rows: experts' first, then corrections, then rated; the newest first."""
        return np.lexsort((-self.position, self.rank))


@dataclass(frozen=True, slots=True)
class Narrowed:
    """What is left of a pool, and what became of the rest."""

    pool: Pool
    funnel: tuple[tuple[str, int], ...]
    set_aside: tuple[tuple[str, int], ...]
    leaks: tuple[tuple[str, int], ...]
    findings: tuple[SuspectGroup, ...]


def narrow(
    pool: Pool,
    background: Background,
    name: str,
    *,
    unique: Callable[[Pool], IntArray],
    text: Callable[[Pool], ObjectArray],
) -> Narrowed:
    """Leave out step by step what must not be trained on, and count what is left.

    Args:
        pool: The rows, in order of time.
        background: What they come from.
        name: What the funnel calls them.
        unique: The rows to keep where prompts repeat.
        text: What near duplicates are looked for in.

    Raises:
        InsufficientDataError: Fewer than `minimum_examples` are left.
    """
    config, context, outcomes = background.config, background.context, background.outcomes
    extra = len(context.demonstrations)
    funnel = [("interactions", len(outcomes) + extra), (name, len(pool))]

    def keep(step: str, rows: BoolArray | IntArray) -> None:
        nonlocal pool
        pool = pool.take(rows)
        funnel.append((step, len(pool)))

    cut = np.append(cut_answers(outcomes, context.endings), np.full(extra, "", dtype=np.object_))
    reasons = unusable(pool, cut, config.maximum_characters)
    keep("readable", reasons == "")
    keep("not refused by their user", ~among(pool.key, context.refused))
    unsafe = np.append(outcomes.unsafe == 1.0, np.zeros(extra, np.bool_))
    flagged = among(pool.key, context.withheld) | unsafe[pool.position]
    keep("not flagged as unsafe", ~(flagged | unsafe[pool.other_position]))
    suspicion = suspect(
        outcomes,
        background.quality,
        config.poisoning,
        reviewed=_reviewed(background),
        vectors_of=context.vectors_of,
    )
    distrusted = np.append(suspicion.distrusted, np.zeros(extra, np.bool_))
    keep("from trusted users", ~distrusted[pool.position])
    keep("one per prompt", unique(pool))
    keep("no near duplicates", _distinct(pool, text(pool), config))
    leaks = Guard.build(background.protected, config.decontamination).leaks(pool.prompt)
    keep("not in an evaluation set", leaks == "")
    keep("of ordinary length", _of_ordinary_length(pool, outcomes, config))
    keep("capped per user and source", _capped(pool, config))
    keep("balanced and capped", _balanced(pool, config, context))
    if len(pool) < config.minimum_examples:
        raise InsufficientDataError(
            f"a training set needs at least {config.minimum_examples} examples, got {len(pool)} "
            f"({', '.join(f'{step}: {count}' for step, count in funnel)}); collect more feedback"
        )
    return Narrowed(pool, tuple(funnel), counted(reasons), counted(leaks), suspicion.findings)


def _reviewed(background: Background) -> FloatArray | None:
    if not background.context.reviewed:
        return None
    keys = background.outcomes.interaction_ids
    return np.array([float(background.context.reviewed.get(key, np.nan)) for key in keys])


def unusable(pool: Pool, cut: ObjectArray, longest: int) -> ObjectArray:
    """Say for each row why it cannot be trained on, "" where it can, shape (n,).

    Args:
        pool: The rows.
        cut: Why an answer is not whole, "" where it is, by place in the outcomes. What a user or
            an expert wrote is whole; the answer that a correction is preferred to must be whole
            too, or the model would learn to avoid a beginning that may be right.
        longest: Characters of a prompt or an answer.
    """
    by_model = (pool.rank >= PREFERRED) | (pool.other != "")
    reasons = np.where(by_model, cut[pool.position], "")
    reasons = np.where(by_model & (reasons == ""), cut[pool.other_position], reasons)
    everywhere = np.ones(len(pool), dtype=np.bool_)
    named = [("answer", pool.target, everywhere), ("prompt", pool.prompt, everywhere)]
    paired = np.asarray(_labels(pool.other) == "") & (pool.other != "")
    for name, texts, looked_at in (*named, ("worse answer", pool.other, paired)):
        column = pa.array([_sound(text) for text in texts], pa.large_string())
        checks = {
            f"{name} is blank": pc.equal(pc.utf8_trim_whitespace(column), ""),
            f"{name} is longer than {longest:,} characters": pc.greater(
                pc.utf8_length(column), longest
            ),
            f"{name} holds a NUL or an unpaired surrogate": pc.is_null(column),
        }
        for reason, broken in checks.items():
            reasons[np.asarray(pc.fill_null(broken, False), dtype=np.bool_) & looked_at] = reason
    return reasons


def _sound(text: str) -> str | None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return None
    return None if "\x00" in text else text


def one_per_prompt(
    prompts: ObjectArray, targets: ObjectArray, users: ObjectArray, rank: IntArray
) -> IntArray:
    """Return the rows to keep: of each prompt one, with the target that most users named.

    An expert's demonstration settles it. Of several rows with that target the newest stays; where
    two targets are named by equally many users none does.
    """
    if not len(prompts):
        return np.empty(0, dtype=np.int64)
    prompt = codes(compact(prompts))
    target = numbered(np.array([normalise_answer(text) for text in targets], dtype=np.object_))
    user = numbered(users)
    width, depth = int(target.max()) + 1, int(user.max()) + 1
    named = prompt * width + target
    distinct = np.unique(named * depth + user)
    names, votes = np.unique(distinct // depth, return_counts=True)
    votes = votes.astype(np.int64)
    experts = np.isin(names, named[rank == DEMONSTRATED])
    votes[experts] += len(prompts) + 1
    order = np.lexsort((-votes, names // width))
    group = (names // width)[order]
    leads = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    runner = np.minimum(leads + 1, len(order) - 1)
    tied = (group[runner] == group[leads]) & (runner != leads)
    tied &= votes[order[runner]] == votes[order[leads]]
    winners = names[order[leads[~tied]]]
    rows = np.flatnonzero(np.isin(named, winners))
    best = np.lexsort((-rows, rank[rows] != DEMONSTRATED, prompt[rows]))
    first = np.unique(prompt[rows][best], return_index=True)[1]
    return np.sort(rows[best[first]])


def _distinct(pool: Pool, texts: ObjectArray, config: CurationConfig) -> IntArray:
    order = pool.by_preference()
    kept = drop_near_duplicates(compact(texts[order]), config.duplicates)
    return np.sort(order[kept])


def _of_ordinary_length(pool: Pool, outcomes: Outcomes, config: CurationConfig) -> BoolArray:
    """Drop the longest rated answers until their mean is ordinary for a segment.

    Of pairs those go whose better answer is longer by most, until better ones are ordinary beside
    the worse ones.
    """
    keep = np.ones(len(pool), dtype=np.bool_)
    ratio = config.length_ratio
    if ratio is None or not len(pool):
        return keep
    lengths, chosen = lengths_of(pool.target), pool.rank >= PREFERRED
    free = lengths <= config.length_free
    pairs = np.flatnonzero(chosen & (pool.other_position != pool.position))
    excess = lengths - ratio * lengths_of(pool.other)
    keep[pairs] = within_mean(excess[pairs], 0.0, free=free[pairs])
    everywhere = lengths_of(outcomes.responses)
    answered = ~outcomes.failed_with_error & (everywhere > 0)
    for segment in sorted({str(name) for name in pool.segment}):
        mine = answered & (outcomes.segments == segment)
        single = chosen & (pool.segment == segment) & (pool.other_position == pool.position)
        rows = np.flatnonzero(single & (pool.other != "down"))
        if mine.any() and len(rows):
            most = ratio * float(everywhere[mine].mean())
            keep[rows] = within_mean(lengths[rows].astype(np.float64), most, free=free[rows])
    return keep


def within_mean(lengths: FloatArray, most: float, *, free: BoolArray) -> BoolArray:
    """Drop the longest until the mean is at most `most`; those that are free all stay."""
    order = np.argsort(lengths, kind="stable")
    means = np.cumsum(lengths[order]) / np.arange(1, len(order) + 1)
    keep = np.empty(len(lengths), dtype=np.bool_)
    keep[order] = (means <= most) | free[order]
    return keep


def _capped(pool: Pool, config: CurationConfig) -> BoolArray:
    """Cap what one user, and one segment where there are several, may give."""
    keep = np.ones(len(pool), dtype=np.bool_)
    caps = config.poisoning
    if not caps.enabled or not len(pool):
        return keep
    order = pool.by_preference()
    of_user = cap_rows(
        numbered(pool.user[order]),
        lambda rows: max(caps.user_rows, int(caps.user_share * rows)),
        size=config.maximum_examples,
    )
    keep[order] = of_user
    segments = numbered(pool.segment[order])
    if caps.source_share < 1.0 and segments.max() > 0:
        keep[order] &= cap_rows(
            segments,
            lambda rows: max(1, int(caps.source_share * rows)),
            size=config.maximum_examples,
        )
    return keep


def _balanced(pool: Pool, config: CurationConfig, context: Context) -> IntArray:
    """Take from the strata in turn, by preference within each, until full; requests come first."""
    order = pool.by_preference()
    targets = [normalise_answer(text) for text in pool.target[order]]
    stratum = _combined(
        pool.segment[order],
        pool.cluster[order],
        np.array(targets, dtype=np.object_),
        _labels(pool.other[order]),
    )
    share = np.ones(int(stratum.max(initial=-1)) + 1)
    if config.balance == "traffic":
        share[:] = np.bincount(stratum, weights=pool.weight[order])
    turn = (_places(stratum) + 1.0) / share[stratum]
    turn[_requested(pool.cluster[order], context)] = 0.0
    return np.sort(order[np.argsort(turn, kind="stable")[: config.maximum_examples]])


def _combined(*columns: ObjectArray) -> IntArray:
    """Return a number for each combination of values, shape (n,)."""
    number = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        part = numbered(column)
        number = np.unique(number * (int(part.max(initial=0)) + 1) + part, return_inverse=True)[1]
    return number


def _labels(others: ObjectArray) -> ObjectArray:
    return np.where(np.isin(others, ("up", "down")), others, "")


def _requested(clusters: ObjectArray, context: Context) -> BoolArray:
    wanted = {request.cluster_id: request.wanted for request in context.requests}
    number = numbered(clusters)
    limits = np.array([wanted.get(str(name), 0) for name in clusters])
    return np.asarray(_places(number) < limits)


def _places(groups: IntArray) -> IntArray:
    """Return the place of each row among those of its group, from 0."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    places = np.empty(len(groups), dtype=np.int64)
    places[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered, side="left")
    return places


def codes(column: pa.Array) -> IntArray:
    """Return a number for each value, from 0 by first appearance."""
    return np.asarray(
        column.dictionary_encode().indices.to_numpy(zero_copy_only=False), dtype=np.int64
    )


def lengths_of(texts: ObjectArray) -> IntArray:
    """Return the length of each text in characters, shape (n,)."""
    return np.asarray(pc.utf8_length(pa.array(texts, pa.large_string())), dtype=np.int64)


def among(keys: ObjectArray, wanted: Collection[str]) -> BoolArray:
    """Tell which keys are among the wanted ones, shape (n,)."""
    if not wanted:
        return np.zeros(len(keys), dtype=np.bool_)
    values = pa.array(sorted(wanted), pa.large_string())
    return np.asarray(pc.is_in(pa.array(keys, pa.large_string()), value_set=values), dtype=np.bool_)


def counted(reasons: ObjectArray) -> tuple[tuple[str, int], ...]:
    """Return how often each reason stands, most frequent first; "" is none."""
    counts = Counter(str(reason) for reason in reasons if reason)
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
